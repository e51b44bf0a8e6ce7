# SPDX-License-Identifier: MIT
"""Gather what a Python package's recipe says, from its source archive and its file in conf/python.

The archive's PKG-INFO is the package's metadata (PyPA specification "Core metadata"); what it calls
dynamic, and metadata before 2.2, is known only when a wheel is built, and then the file must tell.
"""

import hashlib
import re
from dataclasses import dataclass

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError, UsageError
from recipes import backends, licenses, stdlib
from recipes.pyconf import recipe_name
from recipes.pypi import SUFFIX
from recipes.sdist import SourceArchive

# Where the package is to run: the Python of wrynose.
TARGET_PYTHON = "3.14"
_TARGET = {
    "implementation_name": "cpython", "implementation_version": "3.14.0", "os_name": "posix",
    "platform_python_implementation": "CPython", "platform_release": "", "platform_system": "Linux",
    "platform_version": "", "python_full_version": "3.14.0", "python_version": TARGET_PYTHON, "sys_platform": "linux",
}
# A recipe is for every machine: what one of them needs is installed on all.
_MACHINES = ("x86_64", "aarch64", "armv7l", "riscv64", "i686", "ppc64le")

_PATH = re.compile(r"[A-Za-z0-9_.+-]+(?:/[A-Za-z0-9_.+-]+)*")
_URL = re.compile(r"https?://[^\s\"\\$]+")


@dataclass(frozen=True)
class ResolvedPackage:
    """All that a recipe says.

    ``pypi_name`` is the name in the archive's file name, ``directory`` the one that it unpacks to;
    ``license`` is in Yocto's notation, ``license_files`` are (path, MD5 in hexadecimal) pairs;
    ``requires`` are the requirements that hold on the target, as the package puts them;
    ``unused`` are paths below site-packages;
    ``pinned`` tells whether the package demands one exact version of a build tool.
    """

    conf: object
    pypi_name: str
    directory: str
    sha256: str
    summary: str
    homepage: str | None
    bugtracker: str | None
    license: str
    license_files: tuple
    inherit: str
    depends: tuple
    pinned: bool
    unused: tuple
    requires: tuple
    rdepends: tuple
    warnings: tuple


def resolve(conf, index, others=()):
    """Return the ResolvedPackage of a PackageConf.

    :param conf: a ``recipes.pyconf.PackageConf``
    :param index: a ``recipes.pypi.PackageIndex``
    :param others: PackageConfs of further packages, whose recipes' names and versions count for requirements
    :raises ComposeAppsError: of the kind that fits, its message led by the file
    """
    try:
        return _resolve(conf, index, {canonicalize_name(other.name): other for other in others})
    except ComposeAppsError as err:
        raise type(err)(f"{conf.path}: {err}") from None


def _resolve(conf, index, others):
    link = index.find(conf.name, conf.version)
    archive = SourceArchive(index.download(link), link.filename)
    stem = link.filename.removesuffix(f"-{conf.version}{SUFFIX}")
    if stem == link.filename or not _PATH.fullmatch(stem) or not _PATH.fullmatch(archive.top):
        raise CorruptError(
            f"archive {link.filename} is not named NAME-{conf.version}{SUFFIX}: set 'version' as it is written there")
    metadata = archive.metadata()
    _check_python(metadata, archive)
    requirements = _requirements(conf, metadata, archive)
    texts = _license_files(conf, metadata, archive)
    inherit, depends, pinned = backends.build_system(archive)
    split = stdlib.packages_of(archive.sources(conf.name, conf.modules, conf.unused))
    warnings = []
    if link.yanked is not None:
        warnings.append(f"{conf.path}: {conf.name} {conf.version} was withdrawn from the index "
                        f"({_plain(link.yanked)}): choose another version")
    return ResolvedPackage(
        conf=conf, pypi_name=stem, directory=archive.top, sha256=archive.sha256,
        summary=conf.summary or _plain(metadata.get("summary") or f"Python package {conf.name}"),
        homepage=conf.homepage or _address(metadata, "homepage", "source", "repository", "github"),
        bugtracker=_address(metadata, "issues", "issuetracker", "bugtracker", "bugs", "tracker"),
        license=_license(conf, metadata, archive),
        license_files=texts, inherit=inherit, depends=depends, pinned=pinned,
        unused=tuple(path.removeprefix("src/") for path in sorted(conf.unused)),
        requires=tuple(sorted({_plain(str(requirement)) for requirement in requirements})),
        rdepends=tuple(sorted({
            *(f"python3-{part}" for part in split), *conf.rdepends,
            *(_recipe_of(requirement, others) for requirement in requirements),
        })),
        warnings=tuple(warnings),
    )


def _check_python(metadata, archive):
    text = metadata.get("requires_python")
    try:
        fits = not text or SpecifierSet(text).contains(TARGET_PYTHON)
    except InvalidSpecifier:
        raise CorruptError(f"archive {archive.filename}: Requires-Python '{text}' is no version range") from None
    if not fits:
        raise UsageError(f"archive {archive.filename} is for Python {text}, and the target has {TARGET_PYTHON}: "
                         "choose another version")


def _requirements(conf, metadata, archive):
    """Return the requirements that hold on the target, without their markers."""
    texts, found = conf.requires, []
    if texts is None:
        texts = _declared_requirements(metadata, archive)
    unknown = sorted(set(conf.extras) - set(map(canonicalize_name, metadata.get("provides_extra", []))))
    if unknown:
        raise UsageError(f"archive {archive.filename} has no extra '{unknown[0]}': correct 'extras'")
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as err:
            raise CorruptError(f"archive {archive.filename}: Requires-Dist {text!a}: {str(err).splitlines()[0]}") \
                from None
        if _holds(requirement.marker, conf.extras):
            requirement.marker = None
            found.append(requirement)
    return found


def _declared_requirements(metadata, archive):
    version = metadata.get("metadata_version", "1.0").split(".")
    dynamic = {name.lower() for name in metadata.get("dynamic", [])}
    final = [int(part) if part.isdecimal() else 0 for part in version] >= [2, 2]
    if final and not dynamic & {"requires-dist", "provides-extra"}:
        return metadata.get("requires_dist", [])
    project = archive.pyproject().get("project", {})
    late = project.get("dynamic", []) if isinstance(project, dict) else []
    if project and isinstance(late, list) and not {"dependencies", "optional-dependencies"} & set(map(str, late)):
        # Old metadata of a package whose pyproject.toml lists all: PKG-INFO repeats the list.
        return metadata.get("requires_dist", []) or project.get("dependencies", [])
    raise NotFoundError(f"archive {archive.filename} does not list its requirements before it is built: "
                        "list them in 'requires' ([] for none)")


def _holds(marker, extras):
    if marker is None:
        return True
    return any(marker.evaluate({**_TARGET, "platform_machine": machine, "extra": extra})
               for machine in _MACHINES for extra in ("", *extras))


def _recipe_of(requirement, others):
    other = others.get(canonicalize_name(requirement.name))
    if other is None:
        return recipe_name(requirement.name)
    if not requirement.specifier.contains(other.version, prereleases=True):
        raise UsageError(f"requires {requirement}, but {other.path} is for version {other.version}: change one of them")
    return other.recipe


def _license(conf, metadata, archive):
    text = conf.license or metadata.get("license_expression") or metadata.get("license") or ""
    try:
        return licenses.to_yocto(canonicalize_license_expression(text))
    except (InvalidLicenseExpression, licenses.LicenseError):
        declared = f"declares the licence '{_plain(text)[:60]}', no SPDX expression" if text else "declares no licence"
        raise NotFoundError(f"archive {archive.filename} {declared}: set 'license'") from None


def _license_files(conf, metadata, archive):
    paths = conf.license_files or metadata.get("license_files") or archive.licence_files()
    if not paths:
        raise NotFoundError(f"archive {archive.filename} has no licence file: name one in 'license-files'")
    odd = [path for path in paths if not _PATH.fullmatch(path)]
    if odd:
        raise CorruptError(f"archive {archive.filename}: a recipe cannot name its licence file {odd[0]!a}: "
                           "set 'license-files'")
    # MD5 is what LIC_FILES_CHKSUM is made of: it tells that a text changed, and protects nothing.
    return tuple((path, hashlib.md5(archive.read(path), usedforsecurity=False).hexdigest()) for path in sorted(paths))


def _address(metadata, *labels):
    """Return the first of the project's addresses with one of the labels, or None."""
    found = {"homepage": metadata.get("home_page")}
    # Labels count without case, spaces and punctuation (PyPA specification "Well-known Project URLs").
    found |= {re.sub(r"[\W_]+", "", label.lower()): url for label, url in metadata.get("project_urls", {}).items()}
    urls = [found[label] for label in labels if found.get(label)]
    return next((url for url in urls if _URL.fullmatch(url)), None)


def _plain(text):
    """Return text from outside fit for a BitBake string in double quotes."""
    return re.sub(r"[^ -~]|\\", "?", " ".join(text.split())).replace('"', "'").replace("$", "?")
