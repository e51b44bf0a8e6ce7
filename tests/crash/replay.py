# SPDX-License-Identifier: MIT
"""Put a logged disk together as a power cut could have left it, and tell such states apart.

A Replay goes forwards through a log on one image; a state that lacks some of the last writes is
made on a copy of that image, which is also what gets mounted: mounting replays the journal.
"""

import hashlib
import os
from pathlib import Path

from crash import disks
from crash.blocklog import SECTOR
from crash.errors import CrashError

_MODULUS = 1 << 128


def _mark(start, data):
    """Return what one sector adds to a fingerprint."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=16, salt=start.to_bytes(8, "little")).digest(), "little")


class Image:
    """A disk in a file that is written to and knows a fingerprint of what changed.

    The fingerprint is the sum, over all sectors that differ from the base, of a hash of the
    sector's place and content, less that of its content in the base: it depends on the bytes of
    the disk alone, not on the order of writes.
    """

    def __init__(self, path, fingerprint=0):
        self.path, self.fingerprint = Path(path), fingerprint
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def close(self):
        """Close the file."""
        os.close(self._descriptor)

    def read(self, start, length):
        """Return bytes of the disk."""
        return os.pread(self._descriptor, length, start)

    def write(self, start, data):
        """Write ``data`` at the byte ``start``, both multiples of a sector."""
        if start + len(data) > self._size:
            raise CrashError(f"a logged write reaches beyond the end of {self.path}: base and log do not belong "
                             "together")
        self.fingerprint = (self.fingerprint + difference(start, self.read(start, len(data)), data)) % _MODULUS
        os.pwrite(self._descriptor, data, start)


def difference(start, old, new):
    """Return by what a fingerprint grows when ``new`` takes the place of ``old`` at the byte ``start``."""
    if old == new:
        return 0
    total = 0
    for offset in range(0, len(new), SECTOR):
        before, after = old[offset:offset + SECTOR], new[offset:offset + SECTOR]
        if before != after:
            total += _mark(start + offset, after) - _mark(start + offset, before)
    return total


class Replay:
    """The states of one recording, in the order of their prefixes; a context manager.

    Arguments:
        base: the disk before the recording began; it is not written to.
        log: the BlockLog.
        directory: where the image is kept meanwhile.
    """

    def __init__(self, base, log, directory):
        self.log = log
        self._path = Path(directory) / "replay.img"
        disks.copy(base, self._path)
        self.image = Image(self._path)
        self.position = 0

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.image.close()
        self._path.unlink()

    def forward(self, position):
        """Apply all entries before ``position``, which is not smaller than that of the last call."""
        if position < self.position:
            raise ValueError("a replay goes forwards only")
        for entry in self.log.entries[self.position:position]:
            if entry.changes:
                self.image.write(entry.start, self.log.content(entry))
        self.position = position

    def fingerprint(self, state):
        """Return the fingerprint of the disk in a states.State, whose prefix has been reached."""
        total, overlay = self.image.fingerprint, {}
        for start, data in self._rest(state):
            for offset in range(0, len(data), SECTOR):
                place, new = start + offset, data[offset:offset + SECTOR]
                old = overlay.get(place)
                if old is None:
                    old = self.image.read(place, SECTOR)
                total += difference(place, old, new)
                overlay[place] = new
        return total % _MODULUS

    def make(self, state, path):
        """Put the disk of a states.State into the file ``path``; return its fingerprint."""
        self.forward(state.prefix)
        disks.copy(self._path, path)
        with Image(path, self.image.fingerprint) as image:
            for start, data in self._rest(state):
                image.write(start, data)
            return image.fingerprint

    def _rest(self, state):
        """Yield (start, data) of what a state has beyond its prefix."""
        for index, sectors in state.rest:
            entry = self.log.entries[index]
            data = self.log.content(entry)
            if sectors is None:
                yield entry.start, data
            else:
                for number in sectors:
                    offset = number * SECTOR
                    yield entry.start + offset, data[offset:offset + SECTOR]
