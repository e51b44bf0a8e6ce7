# SPDX-License-Identifier: MIT
"""The packages in an image, by the databases of dpkg, apk and rpm in its layers.

dpkg: /var/lib/dpkg/status, or a file for each package in /var/lib/dpkg/status.d (distroless images), paragraphs of
"Field: value" (deb-control(5)). apk: /lib/apk/db/installed, paragraphs of "K:value" (apk's wiki, "Apk spec"). rpm: a
database that the program rpm reads. Files of later layers replace those of earlier ones, and files called ".wh." take
them away (OCI image specification, "Image Layer Filesystem Changeset").
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from composeapps.errors import CorruptError, NotFoundError

_DPKG, _DPKG_PARTS = "var/lib/dpkg/status", "var/lib/dpkg/status.d/"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = ("var/lib/rpm/", "usr/lib/sysimage/rpm/")
_RELEASE = ("etc/os-release", "usr/lib/os-release")
_COPYRIGHT = re.compile(r"usr/share/doc/[^/]+/copyright")
_LARGEST = 256 << 20


class Package(NamedTuple):
    """One package: ``kind`` is "deb", "apk" or "rpm"; ``license`` as its database says it, "" for nothing."""

    kind: str
    name: str
    version: str
    architecture: str = ""
    license: str = ""

    def url(self, distribution):
        """Return its Package URL (purl specification) in a distribution, os-release's ID."""
        namespace = f"{quote(distribution, safe='')}/" if distribution else ""
        arch = f"?arch={quote(self.architecture, safe='')}" if self.architecture else ""
        return f"pkg:{self.kind}/{namespace}{quote(self.name, safe='')}@{quote(self.version, safe='')}{arch}"


class Found(NamedTuple):
    """The Packages of an image, its distribution (os-release's ID and VERSION_ID), and which databases there were."""

    packages: tuple
    distribution: str = ""
    release: str = ""
    databases: tuple = ()


def read(layers):
    """Return what is Found in an image.

    Arguments:
        layers: its layers from the lowest on, each as pieces (bytes) of a tar.

    Raises CorruptError for a layer or database that cannot be read, NotFoundError when rpm is needed and not there.
    """
    files = {}
    for pieces in layers:
        _layer(pieces, files)
    packages, databases = [], []
    status = [files[name] for name in sorted(files) if name == _DPKG or name.startswith(_DPKG_PARTS)
              and not name.endswith(".md5sums")]
    if status:
        databases.append("dpkg")
        packages += _dpkg(status, files)
    for name in _APK:
        if name in files:
            databases.append("apk")
            packages += _apk(_text(files[name]))
    for place in _RPM:
        found = {name.removeprefix(place): data for name, data in files.items() if name.startswith(place)}
        if any(name in found for name in ("rpmdb.sqlite", "Packages", "Packages.db")):
            databases.append("rpm")
            packages += _rpm(found)
    release = next((_os_release(_text(files[name])) for name in _RELEASE if name in files), {})
    return Found(tuple(sorted(set(packages))), release.get("ID", ""), release.get("VERSION_ID", ""), tuple(databases))


def _wanted(name):
    return name in (_DPKG, *_APK, *_RELEASE) or name.startswith((_DPKG_PARTS, *_RPM)) or _COPYRIGHT.fullmatch(name)


class _Pieces:
    def __init__(self, pieces):
        self._pieces, self._rest = iter(pieces), b""

    def read(self, size):
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _layer(pieces, files):
    """Bring the files that are wanted up to date by one layer."""
    added = {}
    try:
        with tarfile.open(fileobj=_Pieces(pieces), mode="r|") as archive:
            for member in archive:
                name = os.path.normpath(member.name).lstrip("/")
                directory, last = os.path.split(name)
                if last == ".wh..wh..opq":
                    _remove(files, directory + "/")
                elif last.startswith(".wh."):
                    gone = os.path.join(directory, last[4:])
                    files.pop(gone, None)
                    _remove(files, gone + "/")
                elif _wanted(name):
                    if member.size > _LARGEST:
                        raise CorruptError(f"{name} has {member.size} bytes")
                    if member.isfile():
                        added[name] = archive.extractfile(member).read()
                    else:
                        files.pop(name, None)
    except (tarfile.TarError, EOFError, ValueError) as err:
        raise CorruptError(f"a layer is no tar: {err}") from None
    files.update(added)


def _remove(files, prefix):
    for name in [name for name in files if name.startswith(prefix)]:
        del files[name]


def _text(data):
    return data.decode("utf-8", "replace")


def _paragraphs(text):
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r", "")):
        fields = {}
        for line in paragraph.split("\n"):
            name, colon, value = line.partition(":")
            if colon and name and not name[0].isspace():
                fields.setdefault(name, value.strip())
        if fields:
            yield fields


def _dpkg(databases, files):
    for fields in (fields for data in databases for fields in _paragraphs(_text(data))):
        # Removed packages stay listed by their configuration.
        if fields.get("Package") and fields.get("Status", "install ok installed").endswith(" installed"):
            name = fields["Package"]
            said = _copyright(_text(files.get(f"usr/share/doc/{name}/copyright", b"")))
            yield Package("deb", name, fields.get("Version", ""), fields.get("Architecture", ""), said)


def _copyright(text):
    """Return the licences that a machine-readable copyright file names (DEP 5), "" for another one."""
    if "Format:" not in text[:500]:
        return ""
    found = {fields["License"] for fields in _paragraphs(text) if fields.get("License")}
    return ", ".join(sorted(found))


def _apk(text):
    for fields in _paragraphs(text):
        if fields.get("P"):
            yield Package("apk", fields["P"], fields.get("V", ""), fields.get("A", ""), fields.get("L", ""))


def _rpm(found):
    if not shutil.which("rpm"):
        raise NotFoundError("the image has packages of rpm, which only the program rpm can list: install Debian's "
                            "package rpm")
    with tempfile.TemporaryDirectory() as directory:
        for name, data in found.items():
            # Databases have no directories.
            if "/" not in name:
                Path(directory, name).write_bytes(data)
        done = subprocess.run(
            ["rpm", "--dbpath", directory, "-qa", "--qf",
             "%{NAME}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{LICENSE}\\n"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    lines = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 3]
    if done.returncode or not lines:
        raise CorruptError("rpm does not read the image's database of packages: "
                           f"{(done.stderr.strip().splitlines() or ['it lists none'])[-1]}")
    return [Package("rpm", *line) for line in lines]


def _os_release(text):
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, equals, value in lines if equals}
