# SPDX-License-Identifier: MIT
"""Records that grow line by line: a line costs what it has, however many there are.

``<state_dir>/NAME`` and its copy ``<state_dir>/copies/NAME`` have one JSON object a line, whose last key is
``checksum``: SHA-256 over the bytes of the line before that key. A line is appended to the copy, then to the file, and
is on the disk in each before the next thing is done. So a cut leaves a line without its end at most, in one of the two,
which then is no damage but a line that was not written. Of damage only the lines are lost that neither of the two has:
what is read are the lines of both. When there are about twice as many as are still needed, both are replaced as other
records are (composeapps.records.sealed): then, too, each of them is old or new.

Files of agents before that are read as well: their lines have no checksum, the last line is one over all others, and
they were replaced with each entry. The first line that is appended replaces such a file; what it becomes, those agents
read: they skip the key that they do not know.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
from typing import NamedTuple

from composeapps import beneath
from composeapps.records import sealed

_KEY = f', "{sealed.CHECKSUM}": "'.encode()
_SEAL = f'{{"{sealed.CHECKSUM}"'.encode()
_HEX = 64
# So many lines more than twice those that are needed are there before any goes; at each so many it is looked at.
_MORE, _LOOKED_AT = 16, 32
# A command reads a record again and again; of so many lines it is kept what is in them.
_LINES = 4096


class Lines(NamedTuple):
    """What was read of a record.

    ``values`` are the objects, the oldest first; ``problem`` says what is damaged, "" for nothing; ``lost`` tells that
    both the file and its copy are, so that lines may be missing. ``whole`` tells that a line can be appended to both.
    """

    values: list
    problem: str = ""
    lost: bool = False
    whole: bool = False


class _File(NamedTuple):
    """One of the two files: its ``data``, the ``lines`` that are certain and those that make sense at best.

    ``damage`` says what is wrong with it, "" for nothing; ``data`` is None where nothing could be read. ``proper``
    tells that each line has its own checksum and its end.
    """

    data: bytes | None
    lines: tuple = ()
    doubtful: tuple = ()
    damage: str = ""
    proper: bool = False

    @property
    def good(self):
        """Whether it is there, and nothing of it is damaged."""
        return self.data is not None and not self.damage


def encode(value):
    """Return a JSON object (a mapping) as a line (bytes), with its checksum."""
    value = {key: entry for key, entry in value.items() if key != sealed.CHECKSUM}
    head = json.dumps(value, ensure_ascii=False).encode(errors="replace")[:-1]
    return head + _KEY + hashlib.sha256(head).hexdigest().encode() + b'"}\n'


def read(root, name, valid=bool):
    """Read a record; takes no lock, and raises nothing.

    Arguments:
        root: the state directory.
        name: the record's path below it.
        valid: tells whether an object can be one of this record.

    Returns a Lines.
    """
    path = root / name
    first = _read(path, valid)
    # One that was written in between is in the copy first.
    second = _read(sealed.copy_of(root, name), valid, first)
    lost, problem = not (first.good or second.good) and bool(first.damage or second.damage), ""
    if lost:
        problem = f"{path} {first.damage or 'is missing'}, and its second copy {second.damage or 'is missing'}"
    elif second.good and not first.good:
        problem = f"{path} {first.damage or 'is missing'}: its second copy counts"
    values = list(map(dict, map(_value, _merged(first, second, lost))))
    return Lines(values, problem, lost, first.proper and first.data == second.data)


def append(root, name, value, keep, valid=bool):
    """Add an object to a record.

    Arguments:
        root, name, valid: as ``read`` has them; the caller holds the agent's lock.
        value: the object, a mapping.
        keep: called with all objects, returns those that are still needed, in order.

    Raises OSError when it is in neither of the two files afterwards.
    """
    found = read(root, name, valid)
    line, places = encode(value), (sealed.copy_of(root, name), root / name)
    values = [*found.values, value]
    if not found.whole:
        try:
            _write(root, name, keep(values))
        except OSError as err:
            # For another line there may be room in what the file takes on the disk already.
            if err.errno not in (errno.ENOSPC, errno.EDQUOT) or not _add([
                    each for each in places if _read(each, valid).proper], line):
                raise
        return
    _add(places, line)
    large = places[1].stat().st_size > sealed.MAX_SIZE // 2
    if large or len(values) % _LOOKED_AT == 0:
        needed = keep(values)
        if large or len(values) > 2 * len(needed) + _MORE:
            # Where there is no room for that, it can wait.
            with contextlib.suppress(OSError):
                _write(root, name, needed)


def mend(root, name, valid=bool):
    """Make a record and its copy the same again, without what cannot be read; the caller holds the agent's lock.

    Returns the sentence about damage that was found, "" for none; a file system that refuses leaves it as it is.
    """
    path, copy = root / name, sealed.copy_of(root, name)
    first = _read(path, valid)
    second = _read(copy, valid, first)
    if not first.damage and first.data == second.data and (first.proper or not first.data or first.data[-1:] == b"\n"):
        return ""
    found = read(root, name, valid)
    if found.values:
        with contextlib.suppress(OSError):
            _write(root, name, found.values)
    if found.lost:
        return f"{found.problem}: what can be read of both is kept" if found.values else found.problem
    if found.problem:
        return f"{path} {first.damage or 'was missing'}: it is made anew from its second copy"
    return f"{copy} {second.damage}: it is made anew from {path}" if second.damage else ""


def replace(root, name, values):
    """Have a record hold these objects and no others; the caller holds its lock. Raises OSError."""
    _write(root, name, values)


def _write(root, name, values):
    sealed.write(root, name, b"".join(map(encode, values)))


def _add(places, line):
    """Append a line to files, each of which then has all of it on the disk, or is as it was.

    Returns whether there was any; raises OSError when none has it.
    """
    failure, done = None, not places
    for place in places:
        try:
            _add_to(place, line)
            done = True
        except OSError as err:
            failure = failure or err
    if not done:
        raise failure
    return bool(places)


def _add_to(place, line):
    descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(descriptor, left):]
            os.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _read(path, valid, same=None):
    """Return the _File at a path; ``same`` is one that probably has the same content."""
    try:
        with beneath.open_regular(path) as stream:
            data = stream.read(sealed.MAX_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return _File(None)
    except OSError as err:
        return _File(None, damage="is no file" if err.errno in (errno.EISDIR, errno.ENXIO)
                     else f"cannot be read ({err.strerror})")
    if same is not None and same.data == data:
        return same
    if not data or len(data) > sealed.MAX_SIZE:
        return _File(data, damage="is damaged" if data else "is empty")
    return _parsed(data, valid)


def _parsed(data, valid):
    lines = data.split(b"\n")
    rest, seal = lines.pop(), None
    if lines and not rest and all(map(_has_checksum, lines)):
        return _File(data, tuple(lines), proper=True)
    if lines and lines[-1].startswith(_SEAL):
        seal = _value(lines[-1]).get(sealed.CHECKSUM) == hashlib.sha256(data[:-len(lines.pop()) - 1]).hexdigest()
    # The first line comes with the file.
    bad = seal is False or seal is None and not lines
    certain, doubtful, proper = [], [], seal is None and not rest
    if rest and _has_checksum(rest):
        # All of it came to the disk but its end.
        lines.append(rest)
    for line in lines:
        if _has_checksum(line):
            certain.append(line)
            continue
        proper = False
        if not valid(_value(line)) or _KEY in line and not seal:
            bad = True
        else:
            (doubtful if seal is False else certain).append(line)
    return _File(data, tuple(certain), tuple(doubtful), "is damaged" if bad else "", proper and not bad)


@functools.lru_cache(_LINES)
def _has_checksum(line):
    head = line[:-len(_KEY) - _HEX - 2]
    return line[len(head):] == _KEY + hashlib.sha256(head).hexdigest().encode() + b'"}'


@functools.lru_cache(_LINES)
def _value(line):
    """Return the object in a line without its checksum, {} when it has none; nobody may change it."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    if not line.startswith(_SEAL):
        value.pop(sealed.CHECKSUM, None)
    return value


def _merged(first, second, everything):
    """Return the lines of both files, in order; with ``everything`` also those that only make sense."""
    one, other = ((*each.lines, *(each.doubtful if everything else ())) for each in (first, second))
    if one == other or not other:
        return one
    have, result, at = set(one), list(one), 0
    places = {line: number for number, line in enumerate(one)}
    if have >= set(other):
        return one
    for line in other:
        if line in have:
            at = max(at, places[line] + len(result) - len(one) + 1)
        else:
            result.insert(at, line)
            at += 1
    return result
