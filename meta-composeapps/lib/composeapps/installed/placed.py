# SPDX-License-Identifier: MIT
"""Where an app's files are below the compose root, and the record of what the agent wrote there.

::

    NAME/                             the app's directory: members of its bundle, and what is the user's
    .composeapps/QUOTED-NAME/         the agent's own, which no container ever sees as a whole
        record.json                   what the agent wrote, see Record
        files/MODE-DIGEST             files that docker compose and dockerd read, see ``inputs``
        versions/DIGEST.json          which of these a version has
        before/…                      what was in the way of a member and is not of the bundle
    .kept/QUOTED-NAME[-N]/            what an app that was removed left

All of it is reached by way of ``composeapps.beneath``: a container that may write somewhere below may
put links there.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from composeapps import COMPOSE_FILE, beneath, durable
from composeapps.app import bundle as bundles
from composeapps.oci.digests import sha256

PRIVATE, KEPT = ".composeapps", ".kept"
_MAX_RECORD = 64 * 1024 * 1024
# A file of up to so many bytes is read at once.
_SMALL = 64 * 1024
# So many contents of a member are remembered: the user may have kept any of them.
_MARKS = 8


class Record(NamedTuple):
    """What the agent wrote into an app's directory.

    ``members`` maps names to the marks of all that may have been written there, none where nobody noted it;
    ``places`` are the user's, as ``mounts`` finds them; ``whole`` tells that a service mounts all of the
    directory, be it to read.
    """

    members: dict
    places: tuple = ()
    whole: bool = False

    def knows(self, name, mark):
        """Tell whether something under a member's name is what the agent wrote there."""
        return mark in self.members.get(name, ())

    def with_index(self, index, kept=None):
        """Return the record with a bundle's index: besides what it has, or, with the ``kept`` names, afterwards."""
        members = {} if kept is not None else {name: list(marks) for name, marks in self.members.items()}
        for name, member in index.items():
            new = mark_of(member)
            old = list(self.members.get(name, ())) if kept is None or name in kept else []
            members[name] = [*(each for each in old if each != new), new][-_MARKS:]
        return self._replace(members=members)


class Placed:
    """An app's places below the compose root.

    Arguments:
        compose_root: the directory (a Path).
        name: the AppName.
    """

    def __init__(self, compose_root, name):
        self.root, self.name = Path(compose_root), name
        self.directory = name.below(self.root)
        self.private = f"{PRIVATE}/{name.file_stem}"
        self._record = self.root / self.private / "record.json"
        self._read = None

    def opened(self):
        """Give, to a ``with``, the beneath.Root of the compose root, which is made where it is missing."""
        durable.make_directories(self.root)
        return beneath.opened(self.root)

    def path(self, private):
        """Return the Path of something of the agent's own."""
        return self.root / self.private / private

    def compose_file(self):
        """Return the compose file (bytes) that lies in the app's directory, None when there is none to be read.

        A container may have written it: it tells what is there, and is not for docker compose.
        """
        try:
            with beneath.opened(self.root) as root:
                return root.read(f"{self.name}/{COMPOSE_FILE}", bundles.MAX_COMPOSE)
        except OSError:
            return None

    def read(self):
        """Return the Record, None when there is none that can be read; it is read once."""
        if self._read is None:
            self._read = self._on_disk()
        return self._read

    def _on_disk(self):
        try:
            with beneath.opened(self.root) as root:
                value = json.loads(root.read(f"{self.private}/record.json", _MAX_RECORD))
            members = {name: [str(mark) for mark in marks] for name, marks in value["members"].items()}
            return Record(members, tuple(map(str, value["places"])), bool(value["whole"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, root, record):
        """Make the Record durable unless it is there; raises OSError."""
        if record != self.read():
            root.make_directories(self.private, 0o700)
            data = json.dumps({**record._asdict(), "places": sorted(record.places)}).encode() + b"\n"
            self._read = None
            root.write(f"{self.private}/record.json", data, 0o600)


def mark_of(member):
    """Return what stands in a Record for a bundle's Member."""
    if member.kind == bundles.DIRECTORY:
        return "directory"
    return f"link {member.target}" if member.kind == bundles.LINK else f"{member.size} {member.digest}"


def found_mark(directory, name, status, expected):
    """Return the mark of what lies in a directory, None for what is neither file, directory nor link.

    Arguments:
        directory: the directory's descriptor.
        name: the name there.
        status: what lstat says of it.
        expected: marks that it may have; a file whose size is none of theirs is not read.
    """
    import stat

    if stat.S_ISDIR(status.st_mode):
        return "directory"
    if stat.S_ISLNK(status.st_mode):
        return f"link {os.readlink(name, dir_fd=directory)}"
    if not stat.S_ISREG(status.st_mode):
        return None
    if not any(mark.startswith(f"{status.st_size} ") for mark in expected):
        return f"{status.st_size} other"
    descriptor = beneath.open_file(directory, name, status)
    if status.st_size <= _SMALL:
        try:
            # By a byte more it is told of one that has grown.
            data = beneath.read_all(descriptor, status.st_size + 1)
        finally:
            os.close(descriptor)
        return f"{len(data)} {sha256(data)}"
    with open(descriptor, "rb") as stream:
        digest = bundles.stream_sha256(stream)
        return f"{os.fstat(stream.fileno()).st_size} {digest}"
