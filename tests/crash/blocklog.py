# SPDX-License-Identifier: MIT
"""The log of block writes as QEMU's blklogwrites driver writes it.

Format: that of Linux' dm-log-writes, little endian. Sector 0 holds the superblock (magic u64,
version u64, number of entries u64, size of a sector u32); then come the entries, each a header
(sector u64, sectors u64, flags u64, length u64) padded to a sector, followed by the sectors that
were written; a discard has none. The length is that of a mark's text and zero for all others. The
number of entries is brought up to date only now and then: the log ends where a header is all zero.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from crash.errors import CrashError

MAGIC, VERSION = 0x6A736677736872, 1
FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16
KNOWN = FLUSH | FUA | DISCARD | MARK | METADATA
SECTOR = 512
_SUPER = struct.Struct("<QQQI")
_HEADER = struct.Struct("<QQQQ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. ``start`` and ``length`` are in bytes on the disk, ``data`` is the offset in the log."""

    start: int
    length: int
    flags: int
    data: int

    @property
    def flushes(self):
        """Whether all that was written before is durable from here on."""
        return bool(self.flags & FLUSH)

    @property
    def changes(self):
        """Whether it changes the disk."""
        return self.length > 0 and not self.flags & MARK


class BlockLog:
    """A log; a context manager.

    ``entries`` holds what was read so far; ``read_on`` reads what came since, for a log that is
    still being written. Raises CrashError for a file that is no such log.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.entries = []
        self.sector_size = self._next = None
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self):
        self.read_on()
        return self

    def __exit__(self, *_exc):
        self.close()

    def close(self):
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read_on(self):
        """Read the entries that were added since the last call; return how many there are in all."""
        if self.sector_size is None and not self._read_super():
            return 0
        end = os.fstat(self._descriptor).st_size
        while self._next + _HEADER.size <= end:
            sector, sectors, flags, length = _HEADER.unpack(os.pread(self._descriptor, _HEADER.size, self._next))
            if not (sector or sectors or flags or length):
                break
            if flags & ~KNOWN or (length and not flags & MARK):
                raise CrashError(f"{self.path}: the entry {len(self.entries)} at byte {self._next} is no entry of a "
                                 "log: record again")
            data, size = self._next + self.sector_size, sectors * self.sector_size
            self.entries.append(Entry(sector * self.sector_size, 0 if flags & MARK else size, flags, data))
            stored = -(-length // self.sector_size) * self.sector_size if flags & MARK else size
            self._next = data + (0 if flags & DISCARD else stored)
        return len(self.entries)

    def _read_super(self):
        header = os.pread(self._descriptor, _SUPER.size, 0)
        if len(header) < _SUPER.size or not any(header):
            return False
        magic, version, _entries, sector_size = _SUPER.unpack(header)
        if (magic, version) != (MAGIC, VERSION) or sector_size not in (512, 4096):
            raise CrashError(f"{self.path} is no log of block writes: record again")
        self.sector_size = self._next = sector_size
        return True

    def content(self, entry):
        """Return the bytes that an entry puts on the disk; zeros for a discard."""
        if entry.flags & DISCARD:
            return bytes(entry.length)
        data = os.pread(self._descriptor, entry.length, entry.data)
        if len(data) != entry.length:
            raise CrashError(f"{self.path} ends in the middle of an entry: record again")
        return data
