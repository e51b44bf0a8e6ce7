# SPDX-License-Identifier: MIT
"""Deterministic image layers made of Debian packages and files of our own.

The same packages give the same bytes: entries sorted, owners numeric, one time stamp
for a whole layer (that of its newest packaged file), no name or time in the gzip header.
"""

import io
import posixpath
import stat
import tarfile
import zlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from composeapps.oci.digests import sha256
from factory.debpackages import PackageError, read_files

# Nothing in an image's single program reads these. The copyright files stay: they are the licences' terms.
UNUSED = (
    "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*", "usr/share/lintian/*", "usr/share/vim/*",
    "usr/share/bash-completion/*", "usr/share/apport/*", "usr/share/initramfs-tools/*",
    "usr/lib/systemd/*", "usr/lib/*/gconv/*", "usr/lib/*/audit/*",
    "etc/init.d/*", "etc/default/*", "etc/logrotate.d/*", "etc/ufw/*", "etc/cron.*",
)
COPYRIGHT = "usr/share/doc/*/copyright"


@dataclass(frozen=True)
class Entry:
    """One path of a layer: ``mode`` with its file type bits, ``data`` a file's bytes or a link's target."""

    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0


def directory(mode=0o755, uid=0, gid=0):
    """Return the Entry of a directory."""
    return Entry(stat.S_IFDIR | mode, b"", uid, gid)


def file(text, mode=0o644):
    """Return the Entry of a file with this text."""
    return Entry(stat.S_IFREG | mode, text.encode())


def symlink(target):
    """Return the Entry of a symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


@dataclass(frozen=True)
class LayerSpec:
    """What a layer is made of.

    :param packages: names of Debian packages, unpacked without their dependencies and scripts
    :param entries: {path without a leading slash: Entry}, laid over the packages' files
    :param drop: patterns (fnmatch) of packaged paths to leave out besides UNUSED
    """

    packages: tuple = ()
    entries: dict = field(default_factory=dict)
    drop: tuple = ()


@dataclass(frozen=True)
class Layer:
    """A finished layer: ``packed`` (.tar.gz), its digest, the digest of the tar (``diff_id``), its time stamp."""

    packed: bytes = field(repr=False)
    digest: str
    diff_id: str
    timestamp: int
    entries: dict = field(repr=False)


def build_layer(spec, packages, lower=()):
    """Make a layer.

    :param spec: the LayerSpec
    :param packages: the downloaded ``factory.debpackages.Package`` of each of its packages
    :param lower: the layers below it; what they already hold unchanged is left out
    :raises PackageError: a package cannot be read, or two entries contradict each other
    """
    entries, timestamp = {}, 0
    for package in packages:
        for info, data in read_files(package):
            path = _merged_usr(posixpath.normpath(info.name))
            if path == "." or not _kept(path, spec.drop):
                continue
            timestamp = max(timestamp, int(info.mtime))
            entries[path] = _entry(info, data, entries, package)
    entries = {path: entry for path, entry in entries.items() if not _is_empty_leftover(path, entry, entries)}
    entries.update(spec.entries)
    _add_parents(entries)
    below = {}
    for layer in lower:
        below.update(layer.entries)
    entries = {path: entry for path, entry in entries.items() if below.get(path) != entry}
    data = _tar(entries, timestamp)
    packed = _gzip(data)
    return Layer(packed, sha256(packed), sha256(data), timestamp, entries)


def _kept(path, drop):
    if fnmatchcase(path, COPYRIGHT):
        return True
    if any(fnmatchcase(path, pattern) for pattern in (*UNUSED, *drop)):
        return False
    return not path.startswith("usr/share/doc/")


def _merged_usr(path):
    """Move what an old package puts into /bin, /lib and so on to where the links of the base layer lead."""
    top = path.split("/", 1)[0]
    return f"usr/{path}" if top in ("bin", "sbin", "lib", "lib64") else path


def _entry(info, data, entries, package):
    mode = stat.S_IMODE(info.mode)
    if info.isdir():
        return Entry(stat.S_IFDIR | mode)
    if info.issym():
        return symlink(info.linkname)
    if info.isreg():
        return Entry(stat.S_IFREG | mode, data)
    if info.islnk():
        target = _merged_usr(posixpath.normpath(info.linkname))
        if target in entries:
            return entries[target]
    raise PackageError(f"{package.path}: '{info.name}' is of a type that an image layer does not take")


def _is_empty_leftover(path, entry, entries):
    """Tell whether a directory held only what was left out (kept: empty ones that a program writes to)."""
    if not stat.S_ISDIR(entry.mode) or path.startswith("var/"):
        return False
    inside = path + "/"
    return not any(other.startswith(inside) and not stat.S_ISDIR(entries[other].mode) for other in entries)


def _add_parents(entries):
    for path in list(entries):
        parent = posixpath.dirname(path)
        while parent:
            entries.setdefault(parent, directory())
            parent = posixpath.dirname(parent)


def _tar(entries, timestamp):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in sorted(entries.items()):
            info = tarfile.TarInfo(path)
            info.mtime, info.uid, info.gid = timestamp, entry.uid, entry.gid
            info.mode = stat.S_IMODE(entry.mode)
            if stat.S_ISDIR(entry.mode):
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif stat.S_ISLNK(entry.mode):
                info.type, info.linkname = tarfile.SYMTYPE, entry.data.decode()
                archive.addfile(info)
            else:
                info.size = len(entry.data)
                archive.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


def _gzip(data):
    # zlib writes a gzip header of zeros; what Python's gzip module writes varies with its version.
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()
