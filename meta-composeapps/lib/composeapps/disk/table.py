# SPDX-License-Identifier: MIT
"""The partition table of the disk that the root file system is on.

Partitions are found by their names: their numbers are the board's business. sfdisk(8) writes the table, the copy at
the disk's end first, as the UEFI specification (5.3.2) has it; a kernel with the argument "gpt" reads that copy when
the power went between the two. What the kernel knows of a disk in use is brought up to date by partx(8), and for a
partition that grows by the same system call as resizepart(8) makes (include/uapi/linux/blkpg.h of Linux).
"""

import array
import collections
import fcntl
import json
import os
import struct
from pathlib import Path

from composeapps.disk.run import run
from composeapps.errors import NotFoundError, StorageError

SECTOR = 512
# What may be left behind the last partition: the copy of the table (33 sectors), rounded up to the alignment.
SLACK = 4096

# Without a question; udev looks away while the disk is locked.
_SFDISK = ("sfdisk", "-q", "--lock", "--force", "--no-reread", "--no-tell-kernel")

_BLKPG, _RESIZE_PARTITION = 0x1269, 3

# Discoverable Partitions Specification: variable data.
DATA_TYPE = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"

Partition = collections.namedtuple("Partition", ["device", "number", "start", "size"])
Partition.__doc__ = "A partition: its device's path, its number, its first sector and its size in sectors."


class Disk:
    """A disk.

    Arguments:
        sysfs: its directory below /sys.
        dev: where devices are.
    """

    def __init__(self, sysfs, dev="/dev"):
        self.sysfs, self._dev = Path(sysfs), Path(dev)
        self.device = self._dev / self.sysfs.name

    def sectors(self):
        """Return the disk's size in sectors of 512 bytes. Raises OSError."""
        return int((self.sysfs / "size").read_text())

    def partition(self, name):
        """Return the Partition that has a name and that the kernel shows, None for none.

        The table is asked: the kernel does not tell the names of partitions that were added while it runs.
        Raises StorageError, OSError.
        """
        nodes = [entry["node"] for entry in self._entries() if entry.get("name") == name]
        for place in sorted(self.sysfs.iterdir()):
            if any(Path(node).name == place.name for node in nodes) and (place / "partition").exists():
                numbers = (int((place / fact).read_text()) for fact in ("partition", "start", "size"))
                return Partition(self._dev / place.name, *numbers)
        return None

    def room_behind(self, part):
        """Return how many sectors a partition that is the last one could have more, 0 for next to nothing or when
        another is behind it. Raises OSError.
        """
        end = part.start + part.size
        starts = [int((place / "start").read_text()) for place in self.sysfs.iterdir() if (place / "start").exists()]
        room = self.sectors() - end
        return room if room > SLACK and all(start < end for start in starts) else 0

    def grow(self, part):
        """Let a partition, the last one, take the rest of the disk. Raises StorageError."""
        self._whole_table()
        run(*_SFDISK, "-N", str(part.number), self.device, text=", +\n")
        size = next((entry["size"] for entry in self._entries() if entry.get("start") == part.start), part.size)
        try:
            self._resize(part, size)
        except OSError as err:
            raise StorageError(f"{part.device} gets its new size at the next start only: {err.strerror}") from None
        settle()

    def _resize(self, part, size):
        """Tell the kernel the new size of a partition, in sectors.

        "partx --update" takes a partition away that nobody uses yet, and adds it again: as soon as udev tells of the
        first, which may be late, systemd takes away what has been mounted from it since.
        """
        data = array.array("B", struct.pack("qqi64s64s4x", part.start * SECTOR, size * SECTOR, part.number, b"", b""))
        descriptor = os.open(self.device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _BLKPG, struct.pack("iiiP", _RESIZE_PARTITION, 0, len(data), data.buffer_info()[0]))
        finally:
            os.close(descriptor)

    def append(self, name, kind):
        """Make a partition out of the room behind the last one.

        Arguments:
            name: its name.
            kind: its type, a UUID.

        Returns the Partition. Raises StorageError, and NotFoundError when the kernel does not show it.
        """
        # A table that says more than the kernel knows is not written to: the data would be in what it says.
        if not any(entry.get("name") == name for entry in self._entries()):
            self._whole_table()
            run(*_SFDISK, "--append", self.device, text=f'type={kind}, name="{name}"\n')
        # Also those that are known: an error tells nothing then.
        run("partx", "--add", self.device, good=(0, 1))
        settle()
        found = self.partition(name)
        if not found:
            raise NotFoundError(f"the kernel does not show the partition '{name}' of {self.device}: restart the device")
        return found

    def _entries(self):
        _status, said = run("sfdisk", "--json", self.device)
        try:
            return json.loads(said)["partitiontable"].get("partitions", [])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StorageError(f"the partition table of {self.device} cannot be read: {said[:200]}") from None

    def _whole_table(self):
        """Move the copy of the table to the disk's end, where an image for a smaller disk did not have it."""
        run(*_SFDISK, "--relocate", "gpt-bak-std", self.device)


def settle():
    """Have udev done with what was changed: a link that comes anew would cancel a mount that waits for it."""
    run("udevadm", "settle", "--timeout=60", good=(0, 1))


def wait_for(path):
    """Have udev done with what changed, so that a device's node is there. Raises NotFoundError."""
    if not os.path.exists(path):
        run("udevadm", "settle", f"--exit-if-exists={path}", "--timeout=30", good=(0, 1))
    if not os.path.exists(path):
        raise NotFoundError(f"there is no {path}")
