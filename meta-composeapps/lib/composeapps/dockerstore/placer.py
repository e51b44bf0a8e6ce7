# SPDX-License-Identifier: MIT
"""Puts the entries of a layer's tar into its directory as dockerd does, touching only what differs.

A file is made beside the layer's directory, in ``<cache id>/composeapps-heal``, with owner,
mode, attributes and times, and renamed into its place. What a killed run leaves is in that
directory alone, where neither dockerd nor a container looks.
"""

import contextlib
import errno
import os
import stat

from composeapps.dockerstore import confine
from composeapps.dockerstore.blobtar import NotHealableError
from composeapps.dockerstore.layercheck import OPAQUE, device, fault_of, get_xattr, owner_of, target
from composeapps.dockerstore.tarsplit import printable

STAGING = b"composeapps-heal"
_SAMPLE = 100


def remove_leftovers(diff):
    """Remove what a killed run left beside a layer's directory (path or descriptor); tells whether there was any."""
    with confine.directory(diff) as root:
        above = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        try:
            return _remove_tree(above, STAGING)
        finally:
            os.close(above)


def _remove_tree(parent, name):
    """Remove a directory and all below it, however deep, without recursion."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        top = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return True
    try:
        number = 0
        # Directories are emptied into the top one, so that depth costs nothing.
        while listed := os.listdir(top):
            for item in listed:
                try:
                    os.unlink(item, dir_fd=top)
                    continue
                except IsADirectoryError:
                    inner = os.open(item, flags, dir_fd=top)
                try:
                    for below in os.listdir(inner):
                        number += 1
                        fresh = f"moved-{number}-{os.urandom(4).hex()}"
                        os.rename(below, fresh, src_dir_fd=inner, dst_dir_fd=top)
                finally:
                    os.close(inner)
                os.rmdir(item, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)
    return True


class Placer:
    """Places entries; a context manager.

    Arguments:
        root: descriptor of the layer's directory.
        id_offset: (user, group) that userns-remap adds to the ids.

    ``count`` is how many files were changed, ``changed`` the names (bytes) of the first of
    them. Methods raise NotHealableError and OSError.
    """

    def __init__(self, root, id_offset=(0, 0)):
        self.root, self.id_offset = root, id_offset
        self.tree = confine.Tree(root)
        self.count, self.changed = 0, []
        self._above = self._staging = -1
        self._number = 0

    def __enter__(self):
        remove_leftovers(self.root)
        with contextlib.ExitStack() as stack:
            self._above = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root)
            stack.callback(os.close, self._above)
            os.mkdir(STAGING, 0o700, dir_fd=self._above)
            self._staging = os.open(STAGING, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                                    dir_fd=self._above)
            stack.callback(self._clean)
            stack.callback(self.tree.forget)
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_exc):
        self._resources.close()

    def _clean(self):
        os.close(self._staging)
        # What cannot be removed now is removed by the next run.
        with contextlib.suppress(OSError):
            _remove_tree(self._above, STAGING)

    def place(self, header, content=()):
        """Make one entry what it has to be.

        Arguments:
            header: its Header.
            content: iterable of the file's content in pieces.
        """
        path, whiteout = target(header)
        if path is None:
            return
        if header.type not in b"0123456":
            raise NotHealableError(f"{printable(path)} is of a type that a layer cannot have")
        if whiteout == "opaque":
            self._opaque(path)
            return
        parent, base = self._parent(path)
        try:
            found = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if whiteout:
            # A directory in its place was put there by the same layer, rightly.
            if found is None or not (stat.S_ISDIR(found.st_mode) or (
                    stat.S_ISCHR(found.st_mode) and found.st_rdev == 0)):
                self._special(path, parent, base, header, stat.S_IFCHR, 0)
        elif header.type == b"0":
            self._regular(path, found, header, content)
        elif header.type == b"5":
            self._directory(path, parent, base, found, header)
        elif header.type == b"1":
            self._link(path, found, header)
        elif fault_of(self.tree, header, self.id_offset):
            parent, base = self._parent(path)
            if header.type == b"2":
                self._symlink(path, parent, base, header)
            else:
                kind = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}[header.type]
                self._special(path, parent, base, header, kind, device(header) if header.type in b"34" else 0)

    def _parent(self, path):
        """Return (directory descriptor, last component), making the directories that are missing."""
        with _no_directory():
            return self.tree.locate(path)
        parts = confine.components(path)
        for count in range(1, len(parts)):
            with _no_directory():
                self.tree.open_directory(parts[:count])
                continue
            self._implied(parts[:count])
        return self.tree.locate(path)

    def _implied(self, parts):
        """Make a directory whose own entry, if there is one, comes later."""
        parent = self.tree.open_directory(parts[:-1])
        held = os.dup(parent)
        try:
            with _times_kept(held):
                # A link that leads to no directory now was not there when dockerd unpacked the layer.
                with contextlib.suppress(FileNotFoundError):
                    self._discard(held, parts[-1])
                os.mkdir(parts[-1], 0o755, dir_fd=held)
                os.chown(parts[-1], *self.id_offset, dir_fd=held, follow_symlinks=False)
                os.chmod(parts[-1], 0o755, dir_fd=held)
        finally:
            os.close(held)

    def _fresh(self):
        self._number += 1
        return b"%d" % self._number

    def _discard(self, parent, base):
        """Take a file or directory out of the layer; it is removed with the staging directory."""
        os.rename(base, self._fresh(), src_dir_fd=parent, dst_dir_fd=self._staging)
        self.tree.forget()

    def _put(self, path, fresh, is_directory=False):
        """Rename a staged file into its place."""
        parent, base = self._parent(path)
        with _times_kept(parent):
            try:
                present = os.stat(base, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                present = None
            if present is not None and (is_directory or stat.S_ISDIR(present.st_mode)):
                held = os.dup(parent)
                try:
                    self._discard(held, base)
                    os.rename(fresh, base, src_dir_fd=self._staging, dst_dir_fd=held)
                finally:
                    os.close(held)
            else:
                os.rename(fresh, base, src_dir_fd=self._staging, dst_dir_fd=parent)
        self._note(path)

    def _note(self, path):
        self.count += 1
        if len(self.changed) < _SAMPLE:
            self.changed.append(path)

    def _finish(self, place, base, header):
        """Give a file owner, attributes, mode and times, in dockerd's order."""
        uid, gid = owner_of(header, self.id_offset)
        os.chown(base, uid, gid, dir_fd=place, follow_symlinks=False)
        for name, value in header.xattrs.items():
            _set_xattr(place, base, name, value)
        if header.type != b"2":
            os.chmod(base, header.mode & 0o7777, dir_fd=place)
        _set_times(place, base, header)

    def _regular(self, path, found, header, content):
        with contextlib.ExitStack() as stack:
            present = None
            if found is not None and stat.S_ISREG(found.st_mode) and found.st_size == header.size:
                parent, base = self.tree.locate(path)
                present = confine.open_regular(base, parent)
                stack.callback(os.close, present)
            fresh = out = None
            at = 0
            for piece in content:
                if out is None:
                    if present is not None and _same(present, piece):
                        at += len(piece)
                        continue
                    fresh, out = self._begin(stack, present, at)
                out.write(piece)
            if out is None and present is None:
                fresh, out = self._begin(stack, None, 0)
            if out is not None:
                out.flush()
                self._finish(self._staging, fresh, header)
                if found is not None:
                    # A cut after the rename must not make less of a file than there was.
                    os.fsync(out.fileno())
        if out is not None:
            self._put(path, fresh)
        elif fault_of(self.tree, header, self.id_offset):
            parent, base = self.tree.locate(path)
            self._finish(parent, base, header)
            self._note(path)

    def _begin(self, stack, present, length):
        """Open a staged file that begins with the first ``length`` bytes of the descriptor ``present``."""
        fresh = self._fresh()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                             dir_fd=self._staging)
        out = stack.enter_context(os.fdopen(descriptor, "wb"))
        at = 0
        while at < length:
            data = os.pread(present, min(length - at, 256 * 1024), at)
            if not data:
                raise NotHealableError("a file of the layer shrinks while it is read: something else writes there")
            out.write(data)
            at += len(data)
        return fresh, out

    def _directory(self, path, parent, base, found, header):
        if found is not None and stat.S_ISDIR(found.st_mode):
            if fault_of(self.tree, header, self.id_offset):
                self._finish(parent, base, header)
                self._note(path)
            elif found.st_mtime_ns != header.mtime:
                # What was lost or made in it has changed it.
                _set_times(parent, base, header)
            return
        fresh = self._fresh()
        os.mkdir(fresh, 0o700, dir_fd=self._staging)
        self._finish(self._staging, fresh, header)
        self._put(path, fresh, is_directory=True)

    def _link(self, path, found, header):
        try:
            parent, base = self.tree.locate(header.link)
            linked = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise NotHealableError(f"{printable(path)} is a hard link to {printable(header.link)}, which is not in "
                                   "the layer") from None
        if found is None or (found.st_dev, found.st_ino) != (linked.st_dev, linked.st_ino):
            fresh = self._fresh()
            os.link(base, fresh, src_dir_fd=parent, dst_dir_fd=self._staging, follow_symlinks=False)
            self._put(path, fresh)
        # dockerd gives the file what the link's entry says.
        owner, mode = owner_of(header, self.id_offset), header.mode & 0o7777
        regular = stat.S_ISREG(linked.st_mode)
        if (linked.st_uid, linked.st_gid) != owner or (regular and stat.S_IMODE(linked.st_mode) != mode):
            parent, base = self.tree.locate(path)
            capability = get_xattr(parent, base, b"security.capability")
            os.chown(base, *owner, dir_fd=parent, follow_symlinks=False)
            if regular:
                os.chmod(base, mode, dir_fd=parent)
            if capability is not None:
                # It is the owner's change that takes it away.
                _set_xattr(parent, base, b"security.capability", capability)

    def _symlink(self, path, parent, base, header):
        fresh = self._fresh()
        os.symlink(header.link, fresh, dir_fd=self._staging)
        self._finish(self._staging, fresh, header)
        self._put(path, fresh)

    def _special(self, path, parent, base, header, kind, number):
        fresh = self._fresh()
        whiteout = kind == stat.S_IFCHR and not number and target(header)[1] == "whiteout"
        os.mknod(fresh, kind | (0 if whiteout else header.mode & 0o7777), number, dir_fd=self._staging)
        if whiteout:
            os.chown(fresh, *owner_of(header, self.id_offset), dir_fd=self._staging, follow_symlinks=False)
        else:
            self._finish(self._staging, fresh, header)
        self._put(path, fresh)

    def _opaque(self, path):
        self._parent(path + b"/x" if path else b"x")
        place = self.tree.open_directory(confine.components(path))
        if get_xattr(place, b".", OPAQUE) != b"y":
            os.setxattr(b"/proc/self/fd/%d/." % place, OPAQUE, b"y")
            self._note(path)


def _same(descriptor, piece):
    """Tell whether ``piece`` comes next in a file."""
    view = memoryview(piece)
    while view:
        data = os.read(descriptor, len(view))
        if not data or data != view[:len(data)]:
            return False
        view = view[len(data):]
    return True


@contextlib.contextmanager
def _times_kept(place):
    """Give a directory its times back after something in it was changed."""
    before = os.fstat(place)
    held = os.dup(place)
    try:
        yield
        os.utime(b"/proc/self/fd/%d" % held, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(held)


@contextlib.contextmanager
def _no_directory():
    """Pass over the errors by which a path has no directory at its end."""
    try:
        yield
    except OSError as err:
        if err.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise


def _set_xattr(place, base, name, value):
    try:
        os.setxattr(b"/proc/self/fd/%d/%s" % (place, base), name, value, follow_symlinks=False)
    except OSError as err:
        # dockerd goes on as well where the file system or the kind of file has no attributes.
        if err.errno not in (errno.EPERM, errno.ENOTSUP):
            raise


def _set_times(place, base, header):
    limit = (1 << 63) - 1
    mtime = header.mtime if 0 <= header.mtime <= limit else 0
    atime = header.atime if mtime <= header.atime <= limit else mtime
    os.utime(base, ns=(atime, mtime), dir_fd=place, follow_symlinks=False)
