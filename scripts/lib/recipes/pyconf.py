# SPDX-License-Identifier: MIT
"""The files of conf/python: one Python package each, checked against python-schema.json."""

from dataclasses import dataclass
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from composeapps.errors import UsageError
from recipes import yamlconf


@dataclass(frozen=True)
class PackageConf:
    """One file of conf/python.

    ``license`` is an SPDX expression; it, ``license_files``, ``requires`` and ``modules`` are None for
    what the source archive says. ``lines`` maps a field to its line.
    """

    path: Path
    name: str
    version: str
    recipe: str
    summary: str | None
    description: str | None
    homepage: str | None
    license: str | None
    license_files: tuple | None
    extras: tuple
    requires: tuple | None
    rdepends: tuple
    modules: tuple | None
    unused: tuple
    cve_products: tuple
    lines: dict


def recipe_name(name):
    """Return the recipe's name, by openembedded-core's habit, of a package on PyPI."""
    return "python3-" + canonicalize_name(name).removeprefix("python-")


def load(path):
    """Read one file and return its PackageConf.

    :raises UsageError: what is wrong in it, a line for each complaint
    """
    path = Path(path)
    value, lines = yamlconf.read(path, "python-schema.json")

    def listed(field):
        return tuple(value[field]) if field in value else None

    requires = listed("requires")
    for number, text in enumerate(requires or ()):
        try:
            Requirement(text)
        except InvalidRequirement as err:
            field = f"requires[{number}]"
            reason = str(err).splitlines()[0]
            raise UsageError(f"{path}:{lines[field]}: {field}: '{text}' is not a requirement: {reason}") from None
    license_ = value.get("license")
    if license_ is not None:
        try:
            license_ = canonicalize_license_expression(license_)
        except InvalidLicenseExpression as err:
            raise UsageError(f"{path}:{lines['license']}: license: {err}") from None
    name = value["name"]
    return PackageConf(
        path, name, value["version"], value.get("recipe") or recipe_name(name),
        yamlconf.one_line(value.get("summary")), yamlconf.one_line(value.get("description")), value.get("homepage"),
        license_, listed("license-files"), tuple(map(canonicalize_name, listed("extras") or ())), requires,
        listed("rdepends") or (), listed("modules"),
        listed("unused") or (), listed("cve-products") or (), lines,
    )
