# SPDX-License-Identifier: MIT
"""The disk that is to be overwritten: whether it is one, whether anybody needs it, how large it is."""

import fcntl
import os
import stat
from pathlib import Path

from composeapps.errors import StorageError, UsageError

SECTOR = 512
# linux/fs.h: forget what memory has of a device.
_BLKFLSBUF = 0x1261


def look(path):
    """Return the size in bytes of a whole disk that nobody uses.

    Raises UsageError for everything else: a file, a partition, a disk of which something is mounted, is swap, or
    belongs to a volume or an array, which the disk of the running system always does; and for one that is read-only.
    """
    try:
        found = os.stat(path)
    except OSError as err:
        raise UsageError(f"{path}: {err.strerror}") from None
    if not stat.S_ISBLK(found.st_mode):
        raise UsageError(f"{path} is no disk")
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    sysfs = Path(os.path.realpath(f"/sys/dev/block/{number}"))
    if (sysfs / "partition").exists():
        raise UsageError(f"{path} is a partition: an image is a whole disk's, here /dev/{sysfs.parent.name}")
    for part in (sysfs, *(each.parent for each in sysfs.glob("*/partition"))):
        _refuse_used(path, part)
    if (sysfs / "ro").read_text().strip() == "1":
        raise UsageError(f"{path} is read-only: a switch on its side, or 'blockdev --setrw {path}'")
    size = int((sysfs / "size").read_text()) * SECTOR
    if not size:
        raise UsageError(f"{path} has no medium in it")
    return size


def _refuse_used(path, sysfs):
    holders = sorted(each.name for each in (sysfs / "holders").glob("*"))
    if holders:
        raise UsageError(f"{path} is in use: /dev/{sysfs.name} belongs to {', '.join(holders)}")
    number = (sysfs / "dev").read_text().strip()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        # Some file systems have a number of their own; the source is behind the " - ".
        source = fields[fields.index("-") + 2]
        if fields[2] == number or _same(source, number):
            raise UsageError(f"{path} is in use: /dev/{sysfs.name} is mounted at {_plain(fields[4])}")
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        if _same(_plain(line.split()[0]), number):
            raise UsageError(f"{path} is in use: /dev/{sysfs.name} is swap")


def _same(source, number):
    if not source.startswith("/"):
        return False
    try:
        found = os.stat(source)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" == number


def _plain(text):
    """Return a name of /proc as it is (proc(5): blanks and the like are octal there)."""
    return text.encode().decode("unicode_escape")


def forget_cache(path):
    """Have the next read of a disk come from the disk. Raises StorageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            fcntl.ioctl(descriptor, _BLKFLSBUF)
        finally:
            os.close(descriptor)
    except OSError as err:
        raise StorageError(f"{path}: {err.strerror}") from None
