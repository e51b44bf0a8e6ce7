# SPDX-License-Identifier: MIT
"""Writing files so that a power cut leaves the old content or the new, never a mixture.

The order is always the same: write a temporary, fsync it, rename it over the name,
fsync the directory. Before the rename the old file is whole; after it the new one is;
until the directory's fsync returns either may be what a reboot finds.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

from composeapps.errors import StorageError


def fsync_directory(path):
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path, mode=0o755, above=None, sync=fsync_directory):
    """Create ``path`` and the parents it lacks, those with the mode ``above``, each one durable in its parent.

    Here and below, who names many files at once may give a ``sync`` that takes note of the directories, and
    syncs each of them once, before a name appears that vouches for the others.
    """
    path = Path(path)
    if path.is_dir():
        return
    make_directories(path.parent, mode if above is None else above, sync=sync)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode)
    sync(path.parent)


def replace(temporary, target, sync=fsync_directory):
    """Rename ``temporary`` (already fsynced) to ``target`` and make the name durable."""
    os.rename(temporary, target)
    sync(Path(target).parent)


@contextlib.contextmanager
def create(path, mode=0o600):
    """Give a new file, open for writing in binary; when the block ends it is on the disk.

    It has its ``mode``, whatever the umask says, before it has any content. What a killed writer left under that
    name goes.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        yield stream
        stream.flush()
        os.fsync(descriptor)


def write_file(path, data, mode=0o644, sync=fsync_directory):
    """Replace the file ``path`` by ``data`` (bytes), atomically and durably.

    A killed writer leaves at most a file whose name starts with ``.tmp-``.
    """
    with prepared(path, data, mode) as temporary:
        replace(temporary, path, sync)


@contextlib.contextmanager
def prepared(path, data, mode=0o644):
    """Give a temporary file that has ``data`` (bytes), on the disk, for ``replace`` to give it the name ``path``."""
    path = Path(path)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        with create(temporary, mode) as stream:
            stream.write(data)
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def make_way(path, top):
    """Take away what a damaged file system left in the place of a file, or of the directories below ``top`` above it.

    For places that are the agent's own: what goes is a file in a directory's place, and in that of ``path`` what is no
    regular file, a directory with all that is in it. Raises OSError.
    """
    path, top = Path(path), Path(top)
    for above in reversed(path.parents):
        if top in above.parents and (found := _found(above)) and not stat.S_ISDIR(found):
            above.unlink()
    found = _found(path)
    if not found or stat.S_ISREG(found):
        return
    if stat.S_ISDIR(found) and not path.is_symlink():
        import shutil

        shutil.rmtree(path)
    else:
        path.unlink()


def _found(path):
    """Return the mode of what has a name, links followed, or of a link that leads nowhere; 0 for nothing.

    It is looked at once: others may be making it.
    """
    with contextlib.suppress(OSError):
        return os.stat(path).st_mode
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.lstat(path).st_mode
    return 0


def remove_file(path):
    """Remove the file ``path`` (a Path), durably; one that is not there needs nothing."""
    if path.exists():
        path.unlink()
        fsync_directory(path.parent)


def sync_filesystem(path):
    """Write out everything that is still in memory of the file system that holds ``path``.

    For data that another program wrote without syncing it. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_filesystem_of(descriptor, path)
    finally:
        os.close(descriptor)


def sync_filesystem_of(descriptor, path=None):
    """Do what ``sync_filesystem`` does, for an open file or directory.

    What failed since that was opened is told, by kernels from 5.8 on also when it failed before this call.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *([str(path)] if path is not None else []))


@contextlib.contextmanager
def if_there_is_room():
    """Go on without what is in the block when the file system is too full for it, as when room is being made."""
    try:
        yield
    except (OSError, StorageError) as err:
        cause = err.__cause__ if isinstance(err, StorageError) else err
        if getattr(cause, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            raise


@contextlib.contextmanager
def storage_errors(what):
    """Turn the file system's refusals into one sentence about ``what``.

    Raises StorageError for a full or read-only file system, an I/O error or a missing permission.
    """
    try:
        yield
    except OSError as err:
        # A rename's second name is the place that it was for.
        names = [str(name) for name in (err.filename, err.filename2) if name]
        where = f" ({' to '.join(names)})" if names else ""
        in_the_way = f"{err.strerror}: something else stands in its place; move that away, then try again"
        remedies = {
            errno.ENOSPC: "the file system is full: free space and try again, nothing was changed",
            errno.EDQUOT: "the quota is used up: free space and try again, nothing was changed",
            errno.EROFS: "the file system is read-only: mount it for writing, then try again",
            errno.EACCES: "permission denied: run it as a user that may write there",
            errno.EPERM: "operation not permitted: run it as a user that may write there; of a file that nobody may "
                         "change ('lsattr' tells) 'chattr -i' makes one that can be",
            errno.ENOTDIR: in_the_way, errno.EISDIR: in_the_way, errno.ELOOP: in_the_way, errno.ENXIO: in_the_way,
        }
        remedy = remedies.get(err.errno, err.strerror or str(err))
        raise StorageError(f"{what}{where}: {remedy}") from err
