# SPDX-License-Identifier: MIT
"""The wish for a factory reset, on the boot partition: the one place that outlives a data partition.

``composeapps-reset.json`` there holds one JSON object: "keep" ("nothing", "registration" or "data"), "discard" (whether
the disk is told to drop the blocks first), "time" (UTC, ISO 8601), "origin" (who asked), "machine" (the machine-id that
is to be forgotten, by which a start tells whether it is), and "sha256", the SHA-256 of the others as JSON with sorted
keys. FAT has no journal, so a file that is not whole is no wish: who wrote it was not told that it was there.
"""

import contextlib
import hashlib
import json
import os
import time
from typing import NamedTuple

from composeapps import durable
from composeapps.disk.run import run
from composeapps.errors import CorruptError, StorageError

NAME = "composeapps-reset.json"
NOTHING, REGISTRATION, DATA = "nothing", "registration", "data"
KEEP = (NOTHING, REGISTRATION, DATA)
_MAX = 4096


class Wish(NamedTuple):
    """A wish: what is kept, whether blocks are dropped, when and by whom it was asked for, the machine-id of then."""

    keep: str = NOTHING
    discard: bool = False
    time: str = ""
    origin: str = ""
    machine: str = ""


def new(keep, discard=False, origin="command", machine=""):
    """Return a Wish of now."""
    return Wish(keep, discard, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), origin, machine)


def dump(wish):
    """Return a wish as it is written (bytes)."""
    value = wish._asdict()
    return json.dumps({**value, "sha256": _checksum(value)}, sort_keys=True).encode() + b"\n"


def parse(data):
    """Return the Wish of a file's bytes. Raises CorruptError for a torn or unknown one."""
    try:
        value = json.loads(data)
        checksum = value.pop("sha256")
        wish = Wish(**value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptError(f"{NAME} on the boot partition is not whole") from None
    if checksum != _checksum(wish._asdict()):
        raise CorruptError(f"{NAME} on the boot partition is damaged")
    if wish.keep not in KEEP or not isinstance(wish.discard, bool):
        raise CorruptError(f"{NAME} on the boot partition asks for keep '{wish.keep}', which is none of "
                           f"{', '.join(KEEP)}")
    return wish


def _checksum(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read(directory):
    """Return the Wish in a directory, None for none. Raises CorruptError, OSError."""
    try:
        with open(os.path.join(directory, NAME), "rb") as stream:
            return parse(stream.read(_MAX))
    except FileNotFoundError:
        return None


def write(directory, wish):
    """Put a wish into a directory, durably, and see that it is there. Raises StorageError, CorruptError."""
    with durable.storage_errors("writing down the factory reset on the boot partition"):
        durable.write_file(os.path.join(directory, NAME), dump(wish), mode=0o600)
        if read(directory) != wish:
            raise StorageError("the factory reset that was written to the boot partition cannot be read back")


def clear(directory):
    """Take the wish away, durably; none there is fine. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, NAME))
    durable.fsync_directory(directory)


@contextlib.contextmanager
def mounted(device, kind, options, place=None):
    """Mount a device while the block lasts, where nobody else looks; give the directory.

    Arguments:
        device: the device's path.
        kind: the file system's type.
        options: mount's.
        place: the directory to mount it at; default: a new one below /run.

    Raises StorageError.
    """
    made = None if place else f"/run/composeapps-{os.getpid()}"
    if made:
        os.makedirs(made, 0o700, exist_ok=True)
    run("mount", "-t", kind, "-o", options, device, place or made)
    try:
        yield place or made
    finally:
        run("umount", place or made)
        if made:
            os.rmdir(made)


def boot_partition(part, writable=False):
    """Return ``mounted`` of the boot partition, a table.Partition."""
    return mounted(part.device, "vfat", ("rw" if writable else "ro") + ",umask=0077,flush")
