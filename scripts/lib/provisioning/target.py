# SPDX-License-Identifier: MIT
"""Images and disks with a provisioning area: where it is, writing it, and copies of an image that cost nothing."""

import contextlib
import errno
import fcntl
import glob
import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from composeapps import durable
from composeapps.disk import area
from composeapps.errors import CorruptError, NotFoundError, StorageError, UsageError
from fastlane import filesystems
from fastlane.errors import BuildError

SECTOR = 512
# linux/fs.h
_FICLONE = 0x40049409
_COPY = 1 << 20
# A table with room for 128 partitions (UEFI specification, 5.3).
_TABLE = 34 * SECTOR


class Place(NamedTuple):
    """Where a disk has its provisioning area, in bytes from its begin, and how large the disk is."""

    offset: int
    size: int


def find(path):
    """Return the Place of the provisioning area of an image or disk.

    Raises NotFoundError where there is none, UsageError for what is no image, StorageError.
    """
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind) or stat.S_ISDIR(kind)):
            raise UsageError(f"{path} is neither an image nor a disk")
        with open(path, "rb") as stream:
            begin, size = stream.read(4), stream.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory, not an image") from None
    except OSError as err:
        raise StorageError(f"{path} cannot be read: {err.strerror}") from None
    if begin == b"\x28\xb5\x2f\xfd":
        raise UsageError(f"{path} is compressed: unpack it by 'zstd --sparse -d {path}', then provision that")
    try:
        table = json.loads(filesystems.run("sfdisk", "--json", path))["partitiontable"]
    except (BuildError, ValueError, KeyError) as err:
        raise UsageError(f"{path} is no disk with partitions ({err}): give the .wic file of an image of the class "
                         "composeapps-disk, or a disk that has it") from None
    found = [each for each in table.get("partitions", []) if each.get("name") == area.PARTITION]
    if len(found) != 1 or found[0]["size"] * SECTOR < area.SIZE:
        raise NotFoundError(f"{path} has no partition '{area.PARTITION}': it is not whole, or an image of before, or "
                            "its table is another one than that of the class composeapps-disk")
    return Place(found[0]["start"] * SECTOR, size)


def held(path, place):
    """Return the area.Provision that an image or disk holds; None for none.

    What is there and is damaged is none: it may be of whatever was on the disk before. Raises CorruptError for what
    another version of this program has written, StorageError.
    """
    with durable.storage_errors("reading the provisioning area"), open(path, "rb") as stream:
        stream.seek(place.offset)
        try:
            return area.parse(area.read(stream))
        except area.OtherFormatError as err:
            raise CorruptError(f"{path}: {err}") from None
        except CorruptError:
            return None


def write(path, place, data, check=lambda: None):
    """Write an area and read it back.

    Arguments:
        path, place: the image or disk, and where its area is.
        data: the area's bytes.
        check: called before anything is written, while nobody else writes to it; raises what is against it.

    Raises UsageError while another process does this to the same image or disk, StorageError.
    """
    with durable.storage_errors("writing the provisioning area"):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{path} is being written to by somebody else: wait for that to end") from None
            check()
            # The content before the head, which tells whether it is whole.
            for begin, end in ((area.SECTOR, len(data)), (0, area.SECTOR)):
                if os.pwrite(descriptor, data[begin:end], place.offset + begin) != end - begin:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
                os.fsync(descriptor)
            if stat.S_ISBLK(os.fstat(descriptor).st_mode):
                # What the disk has, not what memory has of it.
                os.posix_fadvise(descriptor, place.offset, len(data), os.POSIX_FADV_DONTNEED)
            if os.pread(descriptor, len(data), place.offset) != data:
                raise StorageError(f"{path} does not give back what was written to its provisioning area: the disk is "
                                   "faulty")
        finally:
            os.close(descriptor)


def copy(image, target, place, data):
    """Make a copy of an image with an area of its own, under its name only when it is whole, and for its owner only.

    Where the file system can share blocks the copy takes none, else it is a sparse one. Returns whether it is shared.
    Raises UsageError for a target that is something else than a file, StorageError.
    """
    target = Path(target)
    usable(target)
    _forget_killed(target)
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    try:
        with durable.storage_errors(f"writing {target}"):
            with open(image, "rb") as source, durable.create(temporary) as stream:
                shared = _share(source, stream) or _copy(source, stream)
            write(temporary, place, data)
            durable.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return shared


def usable(target):
    """See that a file can be made here, or replaced. Raises UsageError: a disk's name would become a file's."""
    if os.path.exists(target) and not os.path.isfile(target):
        raise UsageError(f"{target} is there already, and is no file: give another name"
                         + (", or the disk by --to" if Path(target).is_block_device() else ""))


def _forget_killed(target):
    """Remove what processes have left that were killed while they made this very file."""
    for path in target.parent.glob(f".tmp-{glob.escape(target.name)}-*"):
        number = path.name.rpartition("-")[2]
        if number.isdecimal() and not os.path.exists(f"/proc/{number}"):
            with contextlib.suppress(OSError):
                path.unlink()


def _share(source, stream):
    try:
        fcntl.ioctl(stream.fileno(), _FICLONE, source.fileno())
        return True
    except OSError:
        return False


def _copy(source, stream):
    size, position = os.fstat(source.fileno()).st_size, 0
    os.ftruncate(stream.fileno(), size)
    while position < size:
        try:
            position = os.lseek(source.fileno(), position, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(source.fileno(), position, os.SEEK_HOLE)
        while position < end:
            count = os.copy_file_range(source.fileno(), stream.fileno(), min(end - position, _COPY), position, position)
            if not count:
                raise OSError(errno.EIO, "the image became shorter meanwhile")
            position += count
    return False


def holds(path, data, image=None, place=None):
    """Tell whether a file is a whole copy of an image with this very area, or the area alone where no image is given.

    By its size, its area and its table, whose identifiers are of one build. Raises OSError when the image cannot be
    read.
    """
    try:
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size != (place.size if image else len(data)):
                return False
            table = stream.read(_TABLE) if image else b""
            stream.seek(place.offset if image else 0)
            if stream.read(len(data)) != data:
                return False
    except OSError:
        return False
    if not image:
        return True
    with open(image, "rb") as stream:
        return stream.read(_TABLE) == table
