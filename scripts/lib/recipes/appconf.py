# SPDX-License-Identifier: MIT
"""The files of conf/apps: one app each, checked against app-schema.json; and apps that need no file."""

import re
from dataclasses import dataclass
from pathlib import Path

from composeapps.errors import UsageError
from composeapps.oci import reference
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import Reference
from recipes import yamlconf
from recipes.licenses import LicenseError, to_yocto

DEFAULT_VERSION = "1.0"


@dataclass(frozen=True)
class AppConf:
    """One file of conf/apps, or one app of the command line.

    ``path`` is the file, or of an app without one the reference (a str); ``platforms`` is None for
    all that every image has; ``license`` is in Yocto's notation, or None for what the images' labels
    say; ``lines`` maps a field to its line, and is empty without a file; ``target`` is the name of the
    Target that the app is of, "" for none, and ``target_version`` its version.
    """

    path: Path | str
    ref: Reference
    name: str
    version: str
    summary: str | None
    description: str | None
    homepage: str | None
    license: str | None
    platforms: tuple | None
    lines: dict
    target: str = ""
    target_version: int = 0


def of_reference(text, target="", target_version=0):
    """Return the AppConf of ``[NAME=]REF``, an app that has no file.

    :param target: the name of the Target that it is of
    :param target_version: that Target's version
    :raises UsageError: it is not of that form
    """
    before, equals, after = text.partition("=")
    uri = after if equals else text
    ref = reference.parse(uri, what="app")
    name = before if equals else str(ref.app_name)
    if not re.fullmatch(yamlconf.pattern("app-schema.json", "name"), name):
        raise UsageError(f"'{name}' cannot be part of a recipe's name: lower-case letters, digits, '.', '+' and '-' "
                         f"can, as in --app shop={uri}")
    return AppConf(uri, ref, name, DEFAULT_VERSION, None, None, None, None, None, {}, target,
                   target_version)


def load(path):
    """Read one app file and return its AppConf.

    :raises UsageError: what is wrong in it, a line for each complaint
    """
    path = Path(path)
    value, lines = yamlconf.read(path, "app-schema.json")

    def fail(field, text):
        raise UsageError(f"{path}:{lines[field]}: {field}: {text}") from None

    try:
        ref = reference.parse(value["uri"], what="app")
    except UsageError as err:
        fail("uri", err)
    name = value.get("name")
    if name is None:
        name = ref.app_name
        if not all(char.isalnum() or char in ".+-" for char in name):
            fail("uri", f"'{name}' cannot be part of a recipe's name: set 'name' as well")
    try:
        license_ = to_yocto(value["license"]) if "license" in value else None
    except LicenseError as err:
        fail("license", err)
    platforms = None
    if "platforms" in value:
        platforms = tuple(Platform.parse(text) for text in value["platforms"])
    return AppConf(
        path, ref, name, value.get("version", DEFAULT_VERSION), yamlconf.one_line(value.get("summary")),
        yamlconf.one_line(value.get("description")), value.get("homepage"), license_, platforms, lines,
    )
