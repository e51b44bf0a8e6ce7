# SPDX-License-Identifier: MIT
"""Small records that outlive damage: a checksum in each file, and a second copy of each file.

``<state_dir>/NAME`` has its copy in ``<state_dir>/copies/NAME``. Both are complete and on the disk
before either gets its name, the copy first, so a cut at any point leaves each of them old or new and
none half written. The file counts while it is whole, else the copy does. A removal takes the copy
first: a record without its file is one that was lost, never one that was removed.

The checksum of a JSON object is its key ``checksum``, SHA-256 over the rest in canonical form; a file
without one is of an older agent, and is believed when it makes sense.
"""

import contextlib
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from composeapps import beneath, durable

COPIES = "copies"
CHECKSUM = "checksum"
# No record comes near this; what is longer was not written here.
MAX_SIZE = 4 * 1024 * 1024


class Found(NamedTuple):
    """What was read of a record: its ``value``, None when there is none that can be read.

    ``problem`` is the sentence about what is damaged, "" for nothing; ``lost`` tells that there was a record, and
    that neither the file nor the copy can be read: what it said is unknown, which is not the same as nothing.
    """

    value: object
    problem: str = ""
    lost: bool = False


def dump(value):
    """Return a JSON object (a mapping) as the bytes of a record, with its checksum."""
    value = {key: entry for key, entry in value.items() if key != CHECKSUM}
    return json.dumps({**value, CHECKSUM: _checksum(value)}, indent=1).encode() + b"\n"


def parse(data):
    """Return the JSON object in a record's bytes, without its checksum; raises ValueError for a damaged one."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    told = value.pop(CHECKSUM, None)
    if told is not None and told != _checksum(value):
        raise ValueError("the checksum does not fit")
    return value


def _checksum(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def copy_of(root, name):
    """Return the place of a record's second copy."""
    return Path(root, _copy_of(name))


def _copy_of(name):
    return f"{COPIES}/{name}"


def read(root, name, parse=parse):
    """Read a record. Takes no lock.

    Arguments:
        root: the state directory.
        name: the record's path below it.
        parse: makes the value of the bytes; raises ValueError, TypeError or KeyError for damage.

    Returns a Found. Raises nothing.
    """
    # Of texts: a boot reads some records of each app.
    path = f"{root}/{name}"
    value, damage = _read(path, parse)
    if value is not None:
        return Found(value)
    other, copy_damage = _read(f"{root}/{_copy_of(name)}", parse)
    if other is not None and not damage:
        # A first writer may just have been between the two.
        value, damage = _read(path, parse)
        if value is not None:
            return Found(value)
    if other is not None:
        return Found(other, f"{path} {damage or 'is missing'}: its second copy counts")
    if damage or copy_damage:
        return Found(None, f"{path} {damage or 'is missing'}, and its second copy {copy_damage or 'is missing'}", True)
    return Found(None)


def _read(path, parse):
    """Return (value, "") of a file, (None, "") when there is none, (None, what is wrong with it)."""
    data, damage = _content(path)
    return (None, damage) if data is None else _parsed(data, parse)


def _content(path):
    """Return (bytes, "") of a file, (None, "") when there is none, (None, what is wrong with it)."""
    try:
        # A pipe in its place must not be waited for.
        descriptor = beneath.unnoted(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return None, "is no file"
            return beneath.read_all(descriptor, min(found.st_size, MAX_SIZE + 1)), ""
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as err:
        return None, f"cannot be read ({err.strerror})"


def _parsed(data, parse):
    try:
        if len(data) > MAX_SIZE:
            raise ValueError(len(data))
        return parse(data), ""
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None, "is damaged" if data else "is empty"


def write(root, name, data):
    """Write a record and its copy; raises OSError, the record then being what it was.

    A file system that has room for one only gets one: an old copy does not stay beside a new record.
    """
    path, copy = Path(root, name), copy_of(root, name)
    durable.make_way(path, root)
    durable.make_directories(path.parent)
    with durable.prepared(path, data) as ready:
        try:
            durable.make_way(copy, root)
            durable.make_directories(copy.parent)
            durable.write_file(copy, data)
        except OSError:
            with contextlib.suppress(OSError):
                durable.remove_file(copy)
        durable.replace(ready, path)


def remove(root, name):
    """Remove a record, the copy first; raises OSError."""
    durable.remove_file(copy_of(root, name))
    durable.remove_file(Path(root, name))


def names(root, directory):
    """Return the names below ``directory`` of all records, "directory/file.json", sorted, of which anything is left."""
    found = set()
    for place in (Path(root, directory), Path(root, COPIES, directory)):
        with contextlib.suppress(OSError):
            found.update(f"{directory}/{entry.name}" for entry in os.scandir(place)
                         if entry.name.endswith(".json") and not entry.name.startswith("."))
    return sorted(found)


def mend(root, name, parse=parse):
    """Make a record and its copy the same again; the caller holds the agent's lock.

    Returns the sentence about damage that was found, "" for none; a file system that refuses leaves it as it is.
    """
    path, copy = f"{root}/{name}", f"{root}/{_copy_of(name)}"
    (data, damage), (other_data, copy_damage) = _content(path), _content(copy)
    value, damage = (None, damage) if data is None else _parsed(data, parse)
    if value is not None and data == other_data:
        return ""
    other, copy_damage = (None, copy_damage) if other_data is None else _parsed(other_data, parse)
    if value is None and other is None:
        return read(root, name, parse).problem
    path, copy = Path(path), Path(copy)
    source, target = (path, copy) if value is not None else (copy, path)
    problem = f"{path} {damage or 'was missing'}: it is made anew from its second copy" if value is None else (
        f"{copy} {copy_damage}: it is made anew from {path}" if copy_damage else "")
    with contextlib.suppress(OSError):
        durable.make_directories(target.parent)
        durable.write_file(target, data if value is not None else other_data)
    return problem
