# SPDX-License-Identifier: MIT
"""Reaching files beneath a directory, whatever symbolic links are in the way.

dockerd unpacks a layer with the layer's directory as its root directory, so a symbolic link
among the parents of an entry is followed, but never out of the layer. The same is done here
component by component on descriptors, so that nothing outside is reached even while
somebody changes the tree.
"""

import contextlib
import errno
import os
import stat

from composeapps.errors import CorruptError

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40
_CACHED = 32


@contextlib.contextmanager
def directory(place):
    """Give a descriptor of a directory that is named by a path, or is a descriptor already.

    A path's last component may not be a symbolic link. Raises OSError.
    """
    if isinstance(place, int):
        yield place
        return
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_regular(path, dir_fd=None):
    """Open a regular file for reading and return its descriptor; follows no link, waits for no FIFO.

    Raises CorruptError when it is something else, OSError when it cannot be opened.
    """
    # Opening a device may already do something: a watchdog's starts it.
    if not stat.S_ISREG(os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        raise CorruptError(f"{os.fsdecode(path)} is not a regular file")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.ENXIO):
            raise CorruptError(f"{os.fsdecode(path)} is not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptError(f"{os.fsdecode(path)} is not a regular file")
    return descriptor


def components(name):
    """Return the components of an entry's name (bytes) as dockerd cleans it: no ".", no "..", no empty one."""
    parts = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part and part != b".":
            parts.append(part)
    return parts


class Tree:
    """The files beneath one directory; a context manager.

    Arguments:
        root: a descriptor of the directory; it stays the caller's.
    """

    def __init__(self, root):
        self.root = root
        self._cache = {}

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.forget()

    def forget(self):
        """Close the directories that are kept open; to be called when one of them was moved or removed."""
        while self._cache:
            os.close(self._cache.popitem()[1])

    def locate(self, name):
        """Return (directory descriptor, last component) of an entry's name.

        The descriptor is valid until the next call. The root itself is (root, b"."). Raises
        FileNotFoundError or NotADirectoryError when a parent is no directory, and OSError.
        """
        parts = components(name)
        if not parts:
            return self.root, b"."
        return self.open_directory(parts[:-1]), parts[-1]

    def open_directory(self, parts):
        """Return a descriptor, valid until the next call, of the directory with these components."""
        if not parts:
            return self.root
        key = b"/".join(parts)
        found = self._cache.pop(key, None)
        if found is None:
            # The parent is mostly among those kept: entries come directory by directory.
            start = self._cache.get(b"/".join(parts[:-1]))
            if start is not None:
                with contextlib.suppress(OSError):
                    found = os.open(parts[-1], _DIRECTORY, dir_fd=start)
            if found is None:
                found = self._walk(parts)
            if len(self._cache) >= _CACHED:
                os.close(self._cache.pop(next(iter(self._cache))))
        self._cache[key] = found
        return found

    def _walk(self, parts):
        todo, done, links = list(reversed(parts)), [], 0
        current = os.open(b".", _DIRECTORY, dir_fd=self.root)
        try:
            while todo:
                part = todo.pop()
                if part == b"..":
                    # ".." of a descriptor might have been moved out of the tree: start again from the top.
                    todo.extend(reversed(done[:-1]))
                    done.clear()
                    os.close(current)
                    current = -1
                    current = os.open(b".", _DIRECTORY, dir_fd=self.root)
                    continue
                try:
                    deeper = os.open(part, _DIRECTORY, dir_fd=current)
                except NotADirectoryError:
                    try:
                        target = os.readlink(part, dir_fd=current)
                    except OSError:
                        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), part) from None
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from None
                    todo.extend(p for p in reversed(target.split(b"/")) if p not in (b"", b"."))
                    if target.startswith(b"/"):
                        done.clear()
                        os.close(current)
                        current = -1
                        current = os.open(b".", _DIRECTORY, dir_fd=self.root)
                    continue
                os.close(current)
                current = deeper
                done.append(part)
            return current
        except BaseException:
            if current >= 0:
                os.close(current)
            raise
