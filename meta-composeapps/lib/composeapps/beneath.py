# SPDX-License-Identifier: MIT
"""Reaching files below one directory and nothing else.

No symbolic link is followed, no device, FIFO or socket opened, and no other file system that is
mounted somewhere below is descended into when a tree is removed.
"""

import contextlib
import errno
import functools
import os
import stat

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NO_REPLACE, EXCHANGE = 1, 2
# So many directories a Walk has open at most: a tree may be deeper than a process may have files open.
_OPEN = 64
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def unnoted(path, flags, directory=None, mode=0o600):
    """Open a file for reading as os.open does, and have the file system take no note of the time where it lets us.

    It only lets the file's owner, and root.
    """
    try:
        return os.open(path, flags | os.O_NOATIME, mode, dir_fd=directory)
    except PermissionError:
        return os.open(path, flags, mode, dir_fd=directory)


def open_regular(path):
    """Return a regular file of the agent's own, open for reading in binary; links are followed.

    A damaged file system may have made anything of it: nothing is waited for. Raises OSError, EISDIR or ENXIO for what
    is no regular file.
    """
    descriptor = unnoted(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.ENXIO, "is not a regular file", str(path))


def read_regular(path):
    """Return the content (bytes) of what ``open_regular`` opens."""
    with open_regular(path) as stream:
        return stream.read()


def read_at(directory, name, limit):
    """Return the content (bytes) of a regular file.

    Arguments:
        directory: descriptor of the directory that has it.
        name: its name there.
        limit: the largest size in bytes that is read.

    Raises OSError: FileNotFoundError when there is none, EINVAL for what is no regular file,
    EFBIG above the limit.
    """
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", name)
    if found.st_size > limit:
        raise OSError(errno.EFBIG, f"has {found.st_size} bytes", name)
    descriptor = unnoted(name, FILE, directory)
    try:
        return read_all(descriptor, min(limit, os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)


def read_all(descriptor, size):
    """Return what is left to read (bytes) of a file that has ``size`` bytes; of one that grows, what it had."""
    # Room for more than that would have to be found, and given back, each time.
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def open_file(directory, name, status=None):
    """Return a descriptor of a regular file for reading; raises OSError (EINVAL for what is none).

    ``status`` is what lstat said of it a moment ago, if that was asked.
    """
    if not stat.S_ISREG((status or os.stat(name, dir_fd=directory, follow_symlinks=False)).st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", name)
    descriptor = unnoted(name, FILE, directory)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is not a regular file", name)


def rename(source, old, target, new, flags=0):
    """Rename an entry of the directory ``source`` to one of ``target``, both descriptors.

    ``flags`` is NO_REPLACE, which raises FileExistsError for a name that is taken, EXCHANGE, or 0. On a file
    system that knows no flags it is a plain rename. Returns whether it was done as the flags say.
    """
    if flags:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if not libc.renameat2(source, os.fsencode(old), target, os.fsencode(new), flags):
            return True
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
            raise OSError(number, os.strerror(number), new)
    os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
    return not flags


@contextlib.contextmanager
def create(directory, name, mode, owner=None, sync=True):
    """Give a new file, open for writing, that is on the disk at the end and gone after an error.

    Arguments:
        directory: descriptor of its directory.
        name: its name; a file that has it is a leftover, and goes.
        mode: its permissions, which it has before its content, whatever the umask says.
        owner: (user, group), by default the process's own.
        sync: False leaves it to the caller to have it on the disk.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                         dir_fd=directory)
    try:
        with open(descriptor, "wb") as stream:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            yield stream
            stream.flush()
            if sync:
                os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise


def make_directory(directory, name, mode=0o755, sync=True):
    """Make a directory with this very mode, whatever the umask says; one that is there stays as it is.

    Arguments:
        directory: descriptor of the directory that gets it.
        name: its name there.
        mode: its permissions.
        sync: False leaves it to the caller to make its name durable.
    """
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        return
    made = os.open(name, DIRECTORY, dir_fd=directory)
    try:
        os.fchmod(made, mode)
    finally:
        os.close(made)
    if sync:
        os.fsync(directory)


def opened(path):
    """Give, to a ``with``, the Root of a directory."""
    return contextlib.closing(Root(path))


class _Closing:
    """A descriptor that is closed at the end of a ``with``, which gets ``value``; of all that is opened most are so."""

    __slots__ = ("_descriptor", "_value")

    def __init__(self, descriptor, value):
        self._descriptor, self._value = descriptor, value

    def __enter__(self):
        return self._value

    def __exit__(self, *_error):
        os.close(self._descriptor)


class Root:
    """A directory below which everything happens.

    Arguments:
        path: the directory; it may be reached by a symbolic link, nothing below it may.

    Paths in all methods are relative, with "/", and name no "..". Every method raises OSError;
    a symbolic link where a directory is wanted gives ELOOP or ENOTDIR.
    """

    def __init__(self, path):
        self.fd = unnoted(path, DIRECTORY & ~os.O_NOFOLLOW)
        self._path = path
        self._kept = {}

    @functools.cached_property
    def path(self):
        """The directory's path, without symbolic links."""
        return os.path.realpath(self._path)

    def close(self):
        """Close the descriptors."""
        self.forget()
        os.close(self.fd)

    def keep(self, path):
        """Return the descriptor of a directory; it stays open until ``forget`` or ``close``."""
        if path not in self._kept:
            self._kept[path] = self._open(path)
        return self._kept[path]

    def forget(self):
        """Close the kept descriptors: directories were replaced."""
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._kept.clear()

    def _open(self, path):
        if not path:
            return os.dup(self.fd)
        current = self.fd
        for part in path.split("/"):
            try:
                deeper = _step(current, part, path)
            finally:
                if current != self.fd:
                    os.close(current)
            current = deeper
        return current

    def walk(self):
        """Give, to a ``with``, a Walk from this directory."""
        return Walk(self.fd)

    def directory(self, path):
        """Give, to a ``with``, the descriptor of a directory."""
        descriptor = self._open(path)
        return _Closing(descriptor, descriptor)

    def parent(self, path):
        """Give, to a ``with``, (descriptor of the directory, name) of a path."""
        where, name = _split(path)
        descriptor = self._open(where)
        return _Closing(descriptor, (descriptor, name))

    def lstat(self, path):
        """Return the file's state, or None when there is no such file."""
        try:
            with self.parent(path) as (directory, name):
                return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_directory(self, path):
        """Tell whether there is a directory of this name, reached by directories."""
        try:
            found = self.lstat(path)
        except OSError:
            return False
        return found is not None and stat.S_ISDIR(found.st_mode)

    def read(self, path, limit):
        """Return a regular file's content; see ``read_at``."""
        with self.parent(path) as (directory, name):
            return read_at(directory, name, limit)

    def names(self, path):
        """Return the names in a directory, sorted; none when there is no such directory."""
        try:
            with self.directory(path) as descriptor:
                return sorted(os.listdir(descriptor))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as err:
            if err.errno == errno.ELOOP:
                return []
            raise

    def make_directory(self, path, mode=0o755, sync=True):
        """Make one directory with this very mode, whatever the umask says; one that is there stays as it is.

        ``sync`` as False leaves it to the caller to make its name durable.
        """
        with self.parent(path) as (directory, name):
            make_directory(directory, name, mode, sync)

    def make_directories(self, path, mode=0o755):
        """Make a directory and those that lead there, where they are missing."""
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            self.make_directory("/".join(parts[:count]), mode)

    def write(self, path, data, mode=0o644):
        """Replace a file by ``data`` (bytes), atomically and durably."""
        with self.parent(path) as (directory, name):
            temporary = f".tmp-{os.getpid()}-{name}"[:250]
            with create(directory, temporary, mode) as stream:
                stream.write(data)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)

    def unused(self, path):
        """Return a path, with a number behind it where there is something of that name already."""
        number, found = 0, path
        while self.lstat(found) is not None:
            number += 1
            found = f"{path}.{number}"
        return found

    def sync(self, path):
        """Make the names in a directory durable, if it is there."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self.directory(path) as descriptor:
            os.fsync(descriptor)

    def absolute(self, path):
        """Return the absolute path, after a look that only directories lead to it."""
        with self.parent(path):
            return os.path.join(self.path, path)


class Walk:
    """Reaches many paths below a directory one after another, each from where the one before has led.

    In sorted order, or its reverse, each directory is opened once, however many paths lead through it. It is opened
    from the one above, so no link is followed; one that is moved away meanwhile is reached where it is now, until the
    walk has left it. So a walk is for one pass, whose own changes are to what lies in the directory that it is at.

    Arguments:
        top: the directory's descriptor, which stays the caller's.

    A context manager, which closes what is open. Paths and errors are as a Root's.
    """

    def __init__(self, top):
        # The path of the directory that it is at, and the descriptors of the last ones that led there.
        self._top, self._at, self._open = top, "", []

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._leave()

    def parent(self, path):
        """Return (descriptor of the directory, name) of a path; the descriptor is open until the next call."""
        where, name = _split(path)
        return self.directory(where), name

    def directory(self, path):
        """Return the descriptor of a directory; it is open until the next call."""
        while self._at and path != self._at and not path.startswith(f"{self._at}/"):
            self._at = self._at.rpartition("/")[0]
            os.close(self._open.pop())
            if not self._open:
                # What is so far up was closed.
                self._at = ""
        rest = path[len(self._at):].removeprefix("/") if self._at else path
        for part in rest.split("/") if rest else ():
            deeper = _step(self._open[-1] if self._open else self._top, part, path)
            self._at = f"{self._at}/{part}" if self._at else part
            self._open.append(deeper)
            if len(self._open) > _OPEN:
                os.close(self._open.pop(0))
        return self._open[-1] if self._open else self._top

    def lstat(self, path):
        """Return the file's state, or None when there is no such file."""
        try:
            directory, name = self.parent(path)
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _leave(self):
        while self._open:
            os.close(self._open.pop())
        self._at = ""


def _split(path):
    """Return (path of the directory, name) of a path."""
    where, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "is not a path below the data root", path)
    return where, name


def _step(directory, name, path):
    """Return the descriptor of a directory in one; ``path`` is what errors name."""
    if name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "is not a path below the data root", path)
    try:
        return unnoted(name, DIRECTORY, directory)
    except OSError as err:
        err.filename = path
        raise


def used(directory, name):
    """Return the bytes that a file or tree takes on its disk, without following anything."""
    total, waiting = 0, []
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        total += found.st_blocks * 512
        if stat.S_ISDIR(found.st_mode):
            waiting.append(os.open(name, DIRECTORY, dir_fd=directory))
    except OSError:
        return total
    device = found.st_dev
    # Descriptors are open for one branch at a time; what nests deeper than this is not worth counting.
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        each = entry.stat(follow_symlinks=False)
                        total += each.st_blocks * 512
                        if stat.S_ISDIR(each.st_mode) and each.st_dev == device and len(waiting) < 200:
                            waiting.append(os.open(entry.name, DIRECTORY, dir_fd=current))
        finally:
            os.close(current)
    return total


def remove_tree(directory, name):
    """Remove a file or a whole tree; return when it is gone.

    A tree of any depth needs few descriptors: what lies deeper is first moved to its top. Nothing
    is removed from another file system that is mounted inside; OSError (EBUSY, EXDEV) tells of it.
    """
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=directory)
            return
        top = os.open(name, DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        return
    try:
        if os.fstat(top).st_dev != os.fstat(directory).st_dev:
            raise OSError(errno.EBUSY, "another file system is mounted there", name)
        serial = 0
        while names := os.listdir(top):
            for each in names:
                serial = _remove_or_lift(top, each, serial)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=directory)


def _remove_or_lift(top, name, serial):
    """Remove an entry of ``top`` after moving the directories in it up into ``top``."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=top)
        return serial
    inner = os.open(name, DIRECTORY, dir_fd=top)
    try:
        if os.fstat(inner).st_dev != os.fstat(top).st_dev:
            raise OSError(errno.EBUSY, "another file system is mounted there", name)
        for each in os.listdir(inner):
            if not stat.S_ISDIR(os.stat(each, dir_fd=inner, follow_symlinks=False).st_mode):
                os.unlink(each, dir_fd=inner)
                continue
            while True:
                serial += 1
                lifted = f".fsck-{serial}"
                try:
                    os.mkdir(lifted, 0o700, dir_fd=top)
                except FileExistsError:
                    continue
                # Over a new, empty directory: a rename never lands on something that is in use.
                os.rename(each, lifted, src_dir_fd=inner, dst_dir_fd=top)
                break
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)
    return serial
