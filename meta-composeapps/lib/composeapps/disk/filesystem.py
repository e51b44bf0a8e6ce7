# SPDX-License-Identifier: MIT
"""The data partition's file system: whether there is one, getting a damaged one back, and making one.

Of ext4's layout (Documentation/filesystems/ext4 of Linux) this knows where superblocks are and how to tell one.
"""

import os
import struct

from composeapps.disk.run import run
from composeapps.errors import StorageError

LABEL = "data"
# Those of the partition in composeapps-disk.wks.in.
OPTIONS = ("-F", "-b", "4096", "-i", "16384")
# While it is being made. mke2fs writes its blocks in no order that a power cut would respect, so only this name's end
# says that all of them are there.
UNFINISHED = "data-new"
_MAGIC = 0xEF53
# Groups whose first block is a copy of the superblock ("sparse_super"), as far as one is looked for.
_GROUPS = (1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343)
# A write would lose what another file system or a volume has there.
_BLKID = ("blkid", "-p", "-o", "value", "-s", "TYPE")


def label(device):
    """Return the label of the ext4 file system on a device, None when its superblock is not there. Raises OSError."""
    with open(device, "rb") as stream:
        return _label(stream, 1024)


def _label(stream, offset):
    stream.seek(offset)
    block = stream.read(1024)
    if len(block) < 1024 or struct.unpack_from("<H", block, 56)[0] != _MAGIC:
        return None
    return block[120:136].rstrip(b"\0").decode(errors="replace")


def ready(device):
    """Return whether a device has a file system that was made to its end. Raises OSError."""
    return label(device) not in (None, UNFINISHED)


def recover(device, notify):
    """Get a file system back whose superblock was overwritten, by one of its copies.

    Arguments:
        device: the device's path.
        notify: called with a sentence for each step.

    Returns whether there is one now, False where no copy is left either. Raises OSError, and StorageError when e2fsck
    cannot be run, or repairs it by none of the copies: what is there is not nothing.
    """
    said = None
    for block, size in _copies(device):
        notify(f"{device} has lost its superblock; repairing the file system by the copy in block {block}")
        # 1: repaired; 2: and a restart is wanted, which is for mounted ones. 4 and on: not all of it.
        status, said = run("e2fsck", "-f", "-y", "-b", str(block), "-B", str(size), device, good=range(256))
        if ready(device):
            notify(f"{device} is repaired (e2fsck: status {status})")
            return True
        notify(f"e2fsck does not repair {device}: {(said.splitlines() or [''])[-1]}")
    if said is not None:
        raise StorageError(f"the file system of {device} is damaged beyond what e2fsck repairs, and left alone; a "
                           "factory reset that keeps nothing makes a new one")
    return False


def _copies(device):
    with open(device, "rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        for size in (4096, 1024, 2048):
            for group in _GROUPS:
                # Blocks of 1 KiB begin with block 1.
                block = group * size * 8 + (size == 1024)
                if block * size + 1024 > end:
                    break
                found = _label(stream, block * size)
                if found not in (None, UNFINISHED):
                    yield block, size


def make(device, content=None, finish=lambda: None):
    """Make a new file system; a power cut in between leaves one that is not ``ready``.

    Arguments:
        device: the device's path.
        content: a directory whose content it gets, if any.
        finish: called when the file system can be mounted, before it is ``ready``.

    Raises StorageError.
    """
    from_tree = ["-d", os.fspath(content)] if content and os.path.isdir(content) else []
    run("mke2fs", "-q", *OPTIONS, "-t", "ext4", "-L", UNFINISHED, *from_tree, device)
    sync(device)
    finish()
    run("tune2fs", "-L", LABEL, device)
    sync(device)


def other(device):
    """Return what blkid takes the content of a device for, "" for nothing that it knows. Raises StorageError."""
    return run(*_BLKID, device, good=(0, 2))[1]


def sync(device):
    """Have all that was written to a device on it. Raises StorageError."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as err:
        raise StorageError(f"{device}: {err.strerror}") from None
