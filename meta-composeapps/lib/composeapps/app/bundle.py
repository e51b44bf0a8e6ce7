# SPDX-License-Identifier: MIT
"""App bundles: the .tgz of an app's directory, with the pinned compose file at its root.

Format: layer 0 of an app manifest as composectl v96 writes it. Owner, group and mode are
kept, modification times are zero, the compose file is named exactly ``docker-compose.yml``.
What unpacks a bundle trusts nothing in it: no name and no file type may reach outside the
directory it is unpacked into, nothing is written through a link, and all of it belongs to who
unpacks it, root on a device: the publisher's number may be somebody else's there.
"""

import contextlib
import errno
import functools
import io
import os
import posixpath
import stat
from pathlib import Path
from typing import NamedTuple

from composeapps import COMPOSE_FILE, tarheader
from composeapps.errors import CorruptError, NotFoundError, UsageError
from composeapps.oci.digests import sha256, stream_sha256

IGNORE_FILE = ".composeappignores"
# What docker compose looks for, in its order; beside the pinned file they would be taken in its place, or added.
BASE_NAMES = ("compose.yaml", "compose.yml", COMPOSE_FILE, "docker-compose.yaml")
OVERRIDE_NAMES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml",
                  "docker-compose.override.yaml")
MAX_COMPOSE = 1024 * 1024
MAX_BUNDLE = 1024 * 1024 * 1024
# Of a bundle that is read: so much in names and attributes of a member, and so many members, no app has.
MAX_HEADER = 64 * 1024
MAX_MEMBERS = 100_000
FILE, DIRECTORY, LINK = "file", "directory", "link"

_CHUNK = 1024 * 1024
# What is unpacked at once.
_PIECE = 128 * 1024
_GZIP = b"\x1f\x8b"
# Of an environment file that is read, of each of the others that are kept, and of all of those.
MAX_TEXT = 256 * 1024
_SMALL, _ROOM = 16 * 1024, 1024 * 1024


def create(app_dir, compose, out, listing=None):
    """Write the bundle of a directory.

    Arguments:
        app_dir: the app's directory.
        compose: the pinned compose file (bytes), which takes the place of the one in the directory.
        out: a binary file that the bundle is written to.
        listing: what ``entries`` returned of the directory; asked for by default.

    Returns the bundle index, {path: digest}, with an entry for each file that is no directory.
    Raises UsageError for what a bundle cannot hold: a device, a link that leaves the directory,
    more than 1 GiB.
    """
    import gzip
    import tarfile

    check_size(compose)
    app_dir = Path(app_dir)
    listing = entries(app_dir) if listing is None else listing
    if COMPOSE_FILE not in listing:
        raise UsageError(f"{app_dir} has no {COMPOSE_FILE}")
    index, total = {}, 0
    # The same input gives the same bytes: no time stamp, no file name, a fixed order.
    with (
        gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0, compresslevel=9) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in listing.items():
            if name == COMPOSE_FILE:
                # Whatever it is in the directory, a link to a file of another name too.
                path = path.resolve()
            info = _describe(tar, name, path, app_dir)
            if name == COMPOSE_FILE:
                info.size = len(compose)
                tar.addfile(info, io.BytesIO(compose))
                index[name] = stream_sha256(io.BytesIO(compose))
            elif info.isreg():
                total += info.size
                if total > MAX_BUNDLE:
                    raise UsageError(f"the bundle of {app_dir} is larger than {MAX_BUNDLE} bytes: "
                                     f"leave files out with a {IGNORE_FILE}")
                with open(path, "rb") as stream:
                    tar.addfile(info, stream)
                    stream.seek(0)
                    index[name] = stream_sha256(stream)
            else:
                tar.addfile(info)
                if info.issym() and path.is_file():
                    # Readers follow the link, so its entry is the digest of what it leads to.
                    with open(path, "rb") as stream:
                        index[name] = stream_sha256(stream)
    return dict(sorted(index.items()))


def check_size(compose):
    """Refuse a pinned compose file (bytes) that no device reads; raises UsageError."""
    if len(compose) > MAX_COMPOSE:
        raise UsageError(f"the pinned compose file has {len(compose)} bytes, more than the {MAX_COMPOSE} allowed")


def entries(app_dir, compose_files=()):
    """Return {name: path} of all that a directory's bundle holds: what the ignore file does not leave out, sorted.

    Arguments:
        app_dir: the app's directory.
        compose_files: the files that make the compose file (Paths), the first in its place. All that
            docker compose would look for at the top of the directory is left out.

    Raises UsageError for a name that is no text, and for an ignore file that is none.
    """
    app_dir = Path(app_dir)
    try:
        data = (app_dir / IGNORE_FILE).read_bytes() + f"\n{IGNORE_FILE}\n".encode()
    except FileNotFoundError:
        data = b""
    from composeapps.app.ignorefile import IgnoreRules

    rules = IgnoreRules(data, str(app_dir / IGNORE_FILE))
    found = {}

    def walk(directory, prefix):
        for entry in sorted(os.scandir(directory), key=lambda e: e.name):
            name = prefix + entry.name
            ignored = rules.ignores(name)
            is_directory = entry.is_dir(follow_symlinks=False)
            if not ignored:
                shown = os.fsencode(name)
                try:
                    shown.decode()
                except UnicodeDecodeError:
                    raise UsageError(f"{app_dir}: the name of the file {shown!r} is not UTF-8: rename it, or leave it "
                                     f"out with a {IGNORE_FILE}") from None
                found[name] = Path(entry.path)
            if is_directory and (not ignored or rules.has_exceptions):
                walk(entry.path, name + "/")

    walk(app_dir, "")
    for name in (*BASE_NAMES, *OVERRIDE_NAMES):
        found.pop(name, None)
    found[COMPOSE_FILE] = compose_files[0] if compose_files else app_dir / COMPOSE_FILE
    return dict(sorted(found.items()))


def _describe(tar, name, path, app_dir):
    from tarfile import REGTYPE

    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"{path} is neither a file, a directory nor a symbolic link: a bundle cannot hold it")
    if stat.S_ISLNK(mode):
        target = os.readlink(path)
        # One that stays inside by its words may leave by way of another one.
        try:
            path.stat()
        except OSError as err:
            # The system follows 40 links of a chain, Python as many as its stack holds.
            if err.errno == errno.ELOOP:
                raise UsageError(f"{path} is a link that leads over too many others, or to itself: "
                                 "a bundle cannot hold it") from None
        if not _stays_inside(name, target) or not Path(os.path.realpath(path)).is_relative_to(
                os.path.realpath(app_dir)):
            raise UsageError(f"{path} is a link to '{target}', outside {app_dir}: a bundle cannot hold it")
    info = tar.gettarinfo(path, name)
    if stat.S_ISREG(mode):
        # Names of one file become files of their own: no hard links in a bundle.
        info.type, info.linkname, info.size = REGTYPE, "", path.stat().st_size
    info.mtime = 0
    info.uname = info.gname = ""
    return info


def _stays_inside(name, target):
    """Tell whether a symbolic link called ``name`` with ``target`` leads to somewhere in the bundle."""
    if not target or target.startswith("/"):
        return False
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return resolved != ".." and not resolved.startswith("../")


class Member(NamedTuple):
    """What a bundle has under a name.

    ``kind`` is one of FILE, DIRECTORY and LINK; ``mode`` the permissions, without those that lend a file's owner.
    A directory that the archive only implies is IMPLIED, with mode -1. A file has its ``digest`` and ``size``, and
    ``source`` is the number of the archive's entry that has the content; a link has its ``target``.
    """

    kind: str
    mode: int = -1
    digest: str = ""
    size: int = 0
    source: int = -1
    target: str = ""


# A directory that the archive does not have, and that leads to what it has.
IMPLIED = Member(DIRECTORY)


class Entry(NamedTuple):
    """What an archive has: a ``name`` in its shortest form, a ``kind`` as a Member has it, and the ``mode`` as given.

    ``size`` is that of a file. A hard link is a file, too, whose ``target`` is the name of the entry that has the
    content; that of a symbolic link is where it leads.
    """

    name: str
    kind: str
    mode: int
    size: int = 0
    target: str = ""


# The types of entries, as tar has them, that a bundle may have: regular ones, the links, directories.
_REGULAR, _HARD_LINK = b"07", b"1"
_KINDS = {b"0": FILE, b"7": FILE, _HARD_LINK: FILE, b"2": LINK, b"5": DIRECTORY}


def members(stream, what):
    """Yield (Entry, binary file or None) of a bundle, each checked before it is handed out.

    Arguments:
        stream: the bundle, compressed by gzip or not at all: a binary file that is read forwards.
        what: how errors name it.

    An absolute symbolic link is handed out like others: what it means is for the container to say. A hard
    link comes without a file, with mode and size of the file before it that has its content.
    Raises CorruptError for an archive that is broken, that reaches outside its directory, or that would take
    more memory or time to read than an app's files ever do.
    """
    with _readable(what):
        archive, pad, total, count, kinds, files = _Archive(stream), 0, 0, 0, {}, {}
        while True:
            header, pad = tarheader.read_header(archive.read, [], pad, MAX_HEADER)
            if header is None:
                break
            if header.sparse:
                raise tarheader.HeaderError("it has a sparse file")
            total += header.stored + tarheader.BLOCK
            if total > MAX_BUNDLE + MAX_COMPOSE:
                raise CorruptError(f"{what} unpacks to more than {MAX_BUNDLE} bytes")
            end = archive.tell() + header.stored
            # What is said of all entries together means nothing to a bundle.
            if header.type != b"g" and (name := _checked_name(_text(header.name), what)) != ".":
                count += 1
                if count > MAX_MEMBERS:
                    raise CorruptError(f"{what} has more than {MAX_MEMBERS} members")
                kind = _checked_kind(header, name, kinds, what)
                entry = Entry(name, kind, header.mode, header.size, _text(header.link) if kind == LINK else "")
                if header.type == _HARD_LINK:
                    same = files[posixpath.normpath(_text(header.link))]
                    entry = Entry(name, FILE, same.mode, same.size, same.name)
                if kind == FILE:
                    files[name] = entry if header.type != _HARD_LINK else same
                yield entry, _Content(archive, header.stored, what) if header.type in _REGULAR else None
            archive.seek(end)
            if archive.tell() != end:
                raise EOFError("it is cut off")
        # Read on to the end, so that a truncated or damaged tail is noticed.
        while stream.read(_CHUNK):
            pass


def _text(name):
    return name.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def _readable(what):
    """Turn what reading a broken archive raises into CorruptError."""
    import zlib

    try:
        yield
    except (tarheader.HeaderError, zlib.error, EOFError, OSError, ValueError, OverflowError) as err:
        if isinstance(err, OSError) and err.errno is not None:
            raise
        raise CorruptError(f"{what} is not a readable .tgz: {err}") from None


class _Archive:
    """The archive that a bundle packs, read forwards."""

    def __init__(self, stream):
        import zlib

        self._stream, self._piece, self._at, self._position = stream, b"", 0, 0
        self._inflate, self._new = None, functools.partial(zlib.decompressobj, zlib.MAX_WBITS | 16)
        self._begin = stream.read(_PIECE)
        while len(self._begin) < len(_GZIP) and (more := stream.read(_PIECE)):
            self._begin += more
        if self._begin.startswith(_GZIP):
            self._inflate = self._new()

    def tell(self):
        return self._position

    def seek(self, position):
        """Go on to a later place."""
        if position < self._position:
            raise ValueError("its members are not in order")
        while position > self._position and self._have():
            count = min(position - self._position, len(self._piece) - self._at)
            self._at, self._position = self._at + count, self._position + count

    def read(self, size):
        """Return so many bytes, fewer at the end."""
        found, wanted = [], size
        while wanted and self._have():
            part = self._piece[self._at:self._at + wanted]
            self._at, wanted = self._at + len(part), wanted - len(part)
            found.append(part)
        self._position += size - wanted
        return found[0] if len(found) == 1 else b"".join(found)

    def _have(self):
        """Have a piece of which something is left; return False at the end."""
        if self._at == len(self._piece):
            self._piece, self._at = self._next(), 0
        return bool(self._piece)

    def _next(self):
        if self._inflate is None:
            return self._packed()
        while True:
            if self._inflate.eof:
                # Several may follow each other, and what is none ends it, as for other readers.
                packed = self._inflate.unused_data
                packed += b"" if len(packed) > 1 else self._packed()
                if not packed.startswith(_GZIP):
                    return b""
                self._inflate = self._new()
            else:
                packed = self._inflate.unconsumed_tail or self._packed()
            piece = self._inflate.decompress(packed, _PIECE)
            if piece:
                return piece
            if not packed and not self._inflate.eof:
                raise EOFError("it is cut off")

    def _packed(self):
        begin, self._begin = self._begin, b""
        return begin or self._stream.read(_PIECE)


class _Content:
    """The content of a member, a binary file of so many bytes; it is read while the archive stands there."""

    def __init__(self, archive, size, what):
        self._archive, self._left, self._what = archive, size, what

    def read(self, size=-1):
        with _readable(self._what):
            wanted = self._left if size < 0 else min(size, self._left)
            data = self._archive.read(wanted)
            if len(data) < wanted:
                raise EOFError("it is cut off")
            self._left -= wanted
            return data

    def readinto(self, view):
        data = self.read(len(view))
        view[:len(data)] = data
        return len(data)


def _checked_name(name, what):
    """Return the name of an entry in its shortest form, "." for the bundle's own directory."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise CorruptError(f"{what}: the name {ascii(name[:200])} leads outside the bundle")
    if any(len(os.fsencode(part)) > 255 for part in parts) or len(os.fsencode(name)) > 4000:
        raise CorruptError(f"{what}: the name {ascii(name[:80])}… is longer than a file's name may be")
    return posixpath.normpath(name) if name else "."


def _checked_kind(header, name, kinds, what):
    """Return the kind of an entry, checked against those before it; ``kinds`` maps their names to what they are."""
    shown = ascii(name[:200])
    parent = posixpath.dirname(name)
    # What leads to a member is a directory from here on, and nothing else under that name passes.
    while parent and parent not in kinds:
        kinds[parent] = DIRECTORY
        parent = posixpath.dirname(parent)
    if parent and kinds[parent] != DIRECTORY:
        behind = "a symbolic link" if kinds[parent] == LINK else "a file"
        raise CorruptError(f"{what}: {shown} lies on or behind {behind}")
    kind, link = _KINDS.get(header.type), _text(header.link)
    if kind is None:
        raise CorruptError(f"{what}: {shown} is neither a file, a directory nor a symbolic link")
    if kinds.get(name, kind) != kind or kinds.get(name) == LINK:
        raise CorruptError(f"{what}: {shown} lies on or behind a symbolic link, or is of two kinds")
    if kind == LINK and (len(link) > 4000 or "\0" in link):
        raise CorruptError(f"{what}: the link {shown} leads to what is no path")
    if kind == LINK and not link.startswith("/") and not _stays_inside(name, link):
        raise CorruptError(f"{what}: the link {shown} to {ascii(link[:200])} leads outside the bundle")
    if header.type == _HARD_LINK:
        target = _checked_name(link, what)
        if kinds.get(target) != FILE or target == name:
            raise CorruptError(f"{what}: {shown} is a hard link to {ascii(target[:200])}, which is no file of "
                               "the bundle before it")
    kinds[name] = kind
    return kind


class Contents(NamedTuple):
    """What one pass over a bundle finds.

    ``index`` is {name: Member}, directories that the archive only implies are in it. ``modes`` has the permissions
    of those members that the archive says otherwise than their Member, since they lend their owner. ``kept`` is
    {name: bytes} of small files: the compose file, and others while there are not too many.
    """

    index: dict
    modes: dict
    kept: dict

    @property
    def all_kept(self):
        """Whether all files were kept."""
        return len(self.kept) == sum(member.kind == FILE for member in self.index.values())

    def texts(self, names):
        """Return ({name: bytes} of those of some names that were kept, the names of those that are files and were not).
        """
        files = [name for name in names if name in self.index and self.index[name].kind == FILE
                 and self.index[name].size <= MAX_TEXT]
        return ({name: self.kept[name] for name in files if name in self.kept},
                {name for name in files if name not in self.kept})


def read(stream, what, wanted=()):
    """Return the Contents of a bundle.

    Arguments:
        stream, what: as ``members`` has them.
        wanted: the names of files that are kept in any case, up to MAX_TEXT bytes each.

    Raises CorruptError.
    """
    found, modes, kept, room = {}, {}, {}, _ROOM
    for place, (info, content) in enumerate(members(stream, what)):
        # Nobody is to run a file with the rights of its owner, who is root here.
        mode = info.mode & (0o1777 if info.kind == DIRECTORY else 0o777)
        if mode != info.mode & 0o7777 and info.kind != LINK:
            modes[info.name] = info.mode & 0o7777
        else:
            modes.pop(info.name, None)
        kept.pop(info.name, None)
        if info.kind == DIRECTORY:
            found[info.name] = Member(DIRECTORY, mode)
        elif info.kind == LINK:
            found[info.name] = Member(LINK, target=info.target)
        elif content is None:
            found[info.name] = found[info.target]
            if info.target in kept:
                kept[info.name] = kept[info.target]
        elif info.size > _PIECE and not (info.name == COMPOSE_FILE or info.name in wanted):
            found[info.name] = Member(FILE, mode, stream_sha256(content), info.size, place)
        else:
            digest, data = _small(info, content)
            found[info.name] = Member(FILE, mode, digest, info.size, place)
            if data is not None and (info.name == COMPOSE_FILE or info.name in wanted):
                kept[info.name] = data
            elif data is not None and len(data) <= min(room, _SMALL):
                kept[info.name], room = data, room - len(data)
    for name in list(found):
        while (name := posixpath.dirname(name)) and name not in found:
            found[name] = IMPLIED
    return Contents(found, modes, kept)


def _small(info, content):
    """Return (digest, content) of a file, None as the latter where it is larger than what is ever kept."""
    if info.size > (MAX_COMPOSE if info.name == COMPOSE_FILE else MAX_TEXT):
        return stream_sha256(content), None
    data = content.read()
    return sha256(data), data


def compose_of(contents, what):
    """Return the compose file (bytes) in the Contents of a bundle; raises as ``read_compose`` does."""
    member = contents.index.get(COMPOSE_FILE)
    if member is None or member.kind != FILE:
        raise NotFoundError(f"{what} has no {COMPOSE_FILE} at its root")
    if COMPOSE_FILE not in contents.kept:
        raise _compose_too_large(member.size, what)
    return contents.kept[COMPOSE_FILE]


def read_compose(stream, what):
    """Return the compose file (bytes) of a bundle.

    Raises NotFoundError when there is none at its root, CorruptError for a broken bundle.
    """
    found = None
    for info, content in members(stream, what):
        if info.name == COMPOSE_FILE and content is not None:
            if info.size > MAX_COMPOSE:
                raise _compose_too_large(info.size, what)
            found = content.read()
    if found is None:
        raise NotFoundError(f"{what} has no {COMPOSE_FILE} at its root")
    return found


def _compose_too_large(size, what):
    return CorruptError(f"{what}: {COMPOSE_FILE} has {size} bytes, more than the {MAX_COMPOSE} allowed")
