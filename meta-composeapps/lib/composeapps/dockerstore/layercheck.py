# SPDX-License-Identifier: MIT
"""Holds a layer's files on the disk against what its tar-split says of them.

The rules are those by which dockerd unpacks a layer for overlay2 (moby, pkg/archive
archive.go and archive_linux.go; go-archive from v29): an entry ``.wh.x`` becomes a character
device 0:0 named ``x``, ``.wh..wh..opq`` the attribute ``trusted.overlay.opaque`` of its
directory, ``.`` is left alone, global headers name no file, a later entry replaces an
earlier one of the same path, a hard link may change owner and mode of what it links to.
"""

import errno
import os
import stat
from array import array
from bisect import bisect_left
from dataclasses import dataclass

from composeapps.dockerstore import confine, tarsplit
from composeapps.dockerstore.crc64 import Crc64
from composeapps.dockerstore.tarsplit import IrreproducibleError, LayerError, printable

OPAQUE = "trusted.overlay.opaque"
_CRC_CHUNK = 64 * 1024
_TYPES = {
    b"0": (stat.S_IFREG, "a regular file"), b"2": (stat.S_IFLNK, "a symbolic link"),
    b"3": (stat.S_IFCHR, "a character device"), b"4": (stat.S_IFBLK, "a block device"),
    b"5": (stat.S_IFDIR, "a directory"), b"6": (stat.S_IFIFO, "a FIFO"),
}
# Attributes that come back from the file system byte for byte; others (ACLs, labels, IMA) may
# have been changed rightly by the kernel or the system.
_EXACT = (b"security.capability", b"user.")


@dataclass(slots=True, frozen=True)
class Fault:
    """One thing that is wrong with a file of a layer.

    ``kind`` is missing, type, size, mode, owner, link, hardlink, device, whiteout, opaque, xattr,
    content or extra. ``certain`` is False for what a sound layer may show as well: where the
    kernel keeps overlay2 from writing whiteouts itself, the kernel leaves some of them out.
    """

    name: bytes
    kind: str
    text: str
    certain: bool = True

    def __str__(self):
        return f"{printable(self.name)} {self.text}"


def target(header):
    """Return (path, whiteout) of an entry: the name of what it becomes, and "" or "whiteout" or "opaque".

    The path is None for an entry that becomes nothing.
    """
    if header.type == b"g":
        return None, ""
    parts = confine.components(header.name)
    if not parts:
        # dockerd skips "." and applies "/".
        return (b"/", "") if header.name.startswith(b"/") else (None, "")
    if not parts[-1].startswith(b".wh."):
        return b"/".join(parts), ""
    if parts[-1] == b".wh..wh..opq":
        return b"/".join(parts[:-1]), "opaque"
    if parts[-1] == b".wh.":
        return None, ""
    return b"/".join((*parts[:-1], parts[-1][4:])), "whiteout"


def fault_of(tree, header, id_offset=(0, 0)):
    """Return the Fault of one entry's file, or None; does not read the file's content.

    Arguments:
        tree: confine.Tree of the layer's directory.
        header: the entry's Header.
        id_offset: what dockerd adds to user and group ids (userns-remap), else (0, 0).
    """
    path, whiteout = target(header)
    if path is None:
        return None
    try:
        if whiteout == "opaque":
            place = tree.open_directory(confine.components(path))
            if get_xattr(place, b".", OPAQUE) != b"y":
                return Fault(path, "opaque", "is not marked as opaque", certain=False)
            return None
        parent, base = tree.locate(path)
        found = os.stat(base, dir_fd=parent, follow_symlinks=False)
        return _differs(parent, base, path, found, header, whiteout, id_offset) or (
            _link_fault(tree, path, found, header) if header.type == b"1" and not whiteout else None)
    except (FileNotFoundError, NotADirectoryError):
        return Fault(path, "missing", "is missing", certain=not whiteout)
    except OSError as err:
        return Fault(path, "missing", f"cannot be looked at: {err.strerror or err}")


def _differs(parent, base, path, found, header, whiteout, id_offset):
    kind = stat.S_IFMT(found.st_mode)
    if whiteout:
        # A directory in its place was put there by the same layer, rightly.
        if kind == stat.S_IFDIR or (kind == stat.S_IFCHR and found.st_rdev == 0):
            return None
        return Fault(path, "whiteout", "is not a whiteout", certain=False)
    if header.type == b"1":
        return None
    if header.type not in _TYPES:
        # dockerd would not have unpacked it.
        return Fault(path, "type", "is of a type that a layer cannot have")
    wanted, called = _TYPES[header.type]
    if kind != wanted:
        return Fault(path, "type", f"is not {called}")
    if header.type == b"0" and found.st_size != header.size:
        return Fault(path, "size", f"has {found.st_size} bytes, not {header.size}")
    if header.type == b"2" and os.readlink(base, dir_fd=parent) != header.link:
        return Fault(path, "link", f"does not point to {printable(header.link)}")
    if header.type in b"34" and found.st_rdev != device(header):
        return Fault(path, "device", f"is not device {header.major}:{header.minor}")
    mode = header.mode & 0o7777
    if header.type != b"2" and stat.S_IMODE(found.st_mode) != mode:
        return Fault(path, "mode", f"has mode {stat.S_IMODE(found.st_mode):04o}, not {mode:04o}")
    owner = owner_of(header, id_offset)
    if (found.st_uid, found.st_gid) != owner:
        return Fault(path, "owner", f"belongs to {found.st_uid}:{found.st_gid}, not {owner[0]}:{owner[1]}")
    for name, value in header.xattrs.items():
        if name.startswith(_EXACT) and not (name.startswith(b"user.") and header.type not in b"05") and (
                get_xattr(parent, base, name) != value):
            return Fault(path, "xattr", f"lacks the attribute {printable(name)}")
    return None


def _link_fault(tree, path, found, header):
    parent, base = tree.locate(header.link)
    try:
        linked = os.stat(base, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return Fault(path, "hardlink", f"is a hard link to {printable(header.link)}, which is missing")
    if (found.st_dev, found.st_ino) != (linked.st_dev, linked.st_ino):
        return Fault(path, "hardlink", f"is not a hard link to {printable(header.link)}")
    return None


def owner_of(header, id_offset):
    """Return (user id, group id) that the file of an entry has on the disk."""
    return (header.uid + id_offset[0]) & 0xFFFFFFFF, (header.gid + id_offset[1]) & 0xFFFFFFFF


def device(header):
    """Return the device number of an entry; raises OSError for one that no device has."""
    try:
        return os.makedev(header.major, header.minor)
    except (OverflowError, ValueError):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None


def get_xattr(parent, base, name):
    """Return an extended attribute (bytes) of the file ``base`` in a directory, or None."""
    # There is no getxattr relative to a descriptor; this path leaves the parent's tree nowhere.
    try:
        return os.getxattr(b"/proc/self/fd/%d/%s" % (parent, base), name, follow_symlinks=False)
    except OSError:
        return None


def stat_problems(tar_split, diff, limit=100, id_offset=(0, 0), tick=None):
    """Return the Faults (at most ``limit``) of a layer that show without reading files' contents.

    Arguments:
        tar_split: path, descriptor or binary file of tar-split.json.gz.
        diff: path or descriptor of the layer's directory of files.
        limit: stop after so many.
        id_offset: (user, group) that userns-remap adds to the ids.
        tick: called with 1 after each entry; what it raises ends the work.

    Raises TarSplitError; OSError when the directory cannot be opened.
    """
    faults = {}
    # A file with several names has the owner and mode of whichever of its entries came last.
    shared = {}
    with confine.directory(diff) as root, confine.Tree(root) as tree:
        for entry in tarsplit.entries(tar_split):
            header = entry.header
            path, whiteout = target(header)
            if path is None:
                continue
            if whiteout != "opaque":
                _supersede(faults, path, header)
            fault = fault_of(tree, header, id_offset)
            if fault is None and header.type == b"1":
                _forgive(tree, faults, shared, header, id_offset)
            elif fault is not None:
                if fault.kind in ("mode", "owner"):
                    _share(tree, shared, path)
                faults[path, whiteout == "opaque"] = fault
                if len(faults) > limit + 1000:
                    break
            if tick:
                tick(1)
    return list(faults.values())[:limit]


def _supersede(faults, path, header):
    if faults:
        faults.pop((path, False), None)
        if header.type != b"5":
            for key in [key for key in faults if key[0].startswith(path + b"/")]:
                del faults[key]


def _share(tree, shared, path):
    parent, base = tree.locate(path)
    found = os.stat(base, dir_fd=parent, follow_symlinks=False)
    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        shared[found.st_dev, found.st_ino] = path


def _forgive(tree, faults, shared, header, id_offset):
    if not shared:
        return
    parent, base = tree.locate(header.name)
    found = os.stat(base, dir_fd=parent, follow_symlinks=False)
    path = shared.get((found.st_dev, found.st_ino))
    if path and stat.S_IMODE(found.st_mode) == header.mode & 0o7777 and (
            (found.st_uid, found.st_gid) == owner_of(header, id_offset)):
        faults.pop((path, False), None)


def bad_files(tar_split, diff, limit=100, id_offset=(0, 0), tick=None):
    """Return the Faults (at most ``limit``) of a layer, its files' contents (by their CRC-64) included.

    Reads every file. Arguments and errors as ``stat_problems``; ``tick`` gets numbers of bytes.
    """
    faults = {}
    with confine.directory(diff) as root, confine.Tree(root) as tree:
        for fault in stat_problems(tar_split, root, limit, id_offset, tick):
            faults[fault.name, fault.kind] = fault
        bad = {}
        for entry in tarsplit.entries(tar_split):
            path, _whiteout = target(entry.header)
            if path is None:
                continue
            _supersede(bad, path, entry.header)
            if entry.crc is None or entry.header.type != b"0" or (path, "size") in faults:
                continue
            checksum = Crc64()
            try:
                for chunk in tarsplit.file_chunks(tree, entry.header, _CRC_CHUNK):
                    checksum.update(chunk)
                    if tick:
                        tick(len(chunk))
            except LayerError as err:
                bad[path, False] = Fault(path, "content", f"cannot be read: {err}")
                continue
            if checksum.digest() != entry.crc:
                bad[path, False] = Fault(path, "content", "has another content")
            if len(bad) > limit:
                break
    known = {fault.name for fault in faults.values()}
    return [*faults.values(), *(fault for fault in bad.values() if fault.name not in known)][:limit]


def content_problem(tar_split, diff, expected_diff_id, tick=None):
    """Return None when a layer's files make up its tar again, else the sentence that says what is wrong.

    A layer that cannot be put together by its nature is held against its files' checksums instead.

    Arguments:
        expected_diff_id: "sha256:<hex>".
        others: as for ``stat_problems``; ``tick`` gets numbers of bytes.

    Raises TarSplitError when the tar-split is damaged; OSError when the directory cannot be opened.
    """
    try:
        found = tarsplit.diff_id(tar_split, diff, tick)
        if found == expected_diff_id:
            return None
    except LayerError as err:
        if not irreproducible(tar_split):
            return str(err)
    except IrreproducibleError:
        pass
    else:
        if not irreproducible(tar_split):
            bad = bad_files(tar_split, diff, limit=1, tick=tick)
            which = f": {bad[0]}" if bad and bad[0].kind == "content" else ""
            return f"its files make up the diff id {found}, not {expected_diff_id}{which}"
    bad = [fault for fault in bad_files(tar_split, diff, tick=tick) if fault.kind in ("missing", "size", "content")]
    return str(bad[0]) if bad else None


def irreproducible(tar_split):
    """Tell whether dockerd itself could not put the layer's tar together; see ``tarsplit``."""
    seen = tarsplit.Duplicates()
    for entry in tarsplit.entries(tar_split):
        if entry.header.sparse:
            return True
        seen.add(entry.header.name)
    last = seen.last()
    return bool(last) and any(
        entry.header.stored and last.get(tarsplit.path_key(entry.header.name), index) != index
        for index, entry in enumerate(tarsplit.entries(tar_split)))


def extra_files(tar_split, diff, limit=100, tick=None):
    """Return Faults (kind "extra") of the files that no entry of a layer names.

    dockerd makes none. Memory: eight bytes an entry. Arguments and errors as ``stat_problems``.
    """
    known, opaque = array("q"), set()
    for entry in tarsplit.entries(tar_split):
        path, whiteout = target(entry.header)
        if path is None:
            continue
        parts = confine.components(path)
        if whiteout == "opaque":
            opaque.add(tarsplit.path_key(path))
        for count in range(len(parts), 0, -1):
            key = hash(b"/".join(parts[:count]))
            if count < len(parts) and known and known[-1] == key:
                break
            known.append(key)
    known = array("q", sorted(known))
    faults = []
    with confine.directory(diff) as root, confine.Tree(root) as tree:
        todo = [b""]
        while todo and len(faults) < limit:
            place = todo.pop()
            try:
                listed = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
                                 dir_fd=tree.open_directory(confine.components(place)))
            except OSError:
                continue
            try:
                with os.scandir(listed) as found:
                    for item in found:
                        _look(item, place, known, opaque, todo, faults)
            finally:
                os.close(listed)
            if tick:
                tick(1)
        return _unnamed(tree, tar_split, faults[:limit]) if faults else faults


def _unnamed(tree, tar_split, faults):
    """Return those Faults whose file no entry leads to through a symbolic link either."""
    named = array("Q")
    for entry in tarsplit.entries(tar_split):
        path, _whiteout = target(entry.header)
        if path:
            try:
                parent, base = tree.locate(path)
                named.append(os.stat(base, dir_fd=parent, follow_symlinks=False).st_ino)
            except OSError:
                continue
    named = frozenset(named)
    left = []
    for fault in faults:
        parent, base = tree.locate(fault.name)
        if os.stat(base, dir_fd=parent, follow_symlinks=False).st_ino not in named:
            left.append(fault)
    return left


def _look(item, place, known, opaque, todo, faults):
    name = os.fsencode(item.name)
    path = place + b"/" + name if place else name
    key = hash(path)
    at = bisect_left(known, key)
    if at < len(known) and known[at] == key:
        if item.is_dir(follow_symlinks=False):
            todo.append(path)
        return
    found = item.stat(follow_symlinks=False)
    if stat.S_ISCHR(found.st_mode) and not found.st_rdev and hash(place) in opaque:
        # Where the kernel writes the whiteouts, an opaque directory is one of many whiteouts.
        return
    faults.append(Fault(path, "extra", "is in no entry of the layer"))
