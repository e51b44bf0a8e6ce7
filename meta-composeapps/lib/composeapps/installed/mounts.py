# SPDX-License-Identifier: MIT
"""Which places of an app's directory its services mount, and which of them are thereby the user's.

A place is a path below the app's directory, "." for all of it. What a container may write to belongs to
the user from then on: the agent never replaces, moves or removes it.
"""

import bisect
import os
import posixpath
import re

from composeapps import programs
from composeapps.app import interpolation
from composeapps.engine import look


class Binding:
    """A place that a service mounts: its ``service``, ``place``, and whether it ``writes`` there."""

    def __init__(self, service, place, writes):
        self.service, self.place, self.writes = service, place, writes


class Paths:
    """Paths of a compose file as places.

    Arguments:
        directory: the app's directory (a Path).
        environment: the text of its .env.
    """

    def __init__(self, directory, environment=""):
        self._directory = str(directory)
        try:
            self._variables = {"PWD": self._directory, **interpolation.parse_environment(environment),
                               **programs.ENVIRONMENT}
        except ValueError:
            self._variables = None

    def text(self, text):
        """Return a text of the compose file with its variables replaced, None where they are not known."""
        text = str(text)
        if "$" not in text:
            return text
        try:
            return interpolation.substitute(text, self._variables) if self._variables is not None else None
        except ValueError:
            return None

    def place(self, text):
        """Return a path of the compose file as a place, None when it is elsewhere, "." when nobody can tell."""
        path = self.text(text)
        if path is None:
            return "."
        if not path or path.startswith("~"):
            return None
        return place_of(os.path.join(self._directory, path), self._directory)

    def volume(self, entry):
        """Return (place, whether it is written to) of an entry of a service's ``volumes``, None for no bind mount."""
        if isinstance(entry, dict):
            if entry.get("type") != "bind":
                return None
            place = self.place(entry.get("source") or "")
            return place and (place, entry.get("read_only") not in (True, "true"))
        text = self.text(entry)
        if text is None:
            return ".", True
        source, colon, rest = text.partition(":")
        if not colon or not source.startswith((".", "/")):
            return None
        place = self.place(source.replace("$", "$$"))
        options = rest.partition(":")[2].split(",")
        return place and (place, "ro" not in options)


def place_of(path, directory):
    """Return an absolute path as a place of ``directory``, "." when it holds all of that, None when elsewhere."""
    path, directory = posixpath.normpath(str(path)), str(directory)
    if path == directory or directory.startswith(f"{path.rstrip('/')}/"):
        return "."
    return path[len(directory) + 1:] if path.startswith(f"{directory}/") else None


def bindings(value, paths):
    """Return the Bindings of a compose file.

    Arguments:
        value: the compose file, a mapping.
        paths: the Paths.
    """
    found = []
    for name, service in _mapping(value.get("services")).items():
        for entry in _list(_mapping(service).get("volumes")):
            mounted = paths.volume(entry)
            if mounted:
                found.append(Binding(str(name), *mounted))
    # A named volume may be a directory of the host, too.
    for name, volume in _mapping(value.get("volumes")).items():
        device = _mapping(_mapping(volume).get("driver_opts")).get("device")
        place = paths.place(device) if device else None
        if place:
            found.append(Binding(f"volume {name}", place, True))
    return found


def written_now(engine, directory):
    """Return the places of a directory that containers may write to, running or not; raises EngineError."""
    if engine is None:
        return set()
    mounts, directory = look.at(engine).mounts(), str(directory)
    found = mounted_below(mounts, directory)
    path, above = directory, None
    while path != above:
        found += _between(mounts, path, f"{path}\0")
        path, above = posixpath.dirname(path), path
    return {place_of(path, directory) for path, writes in found if writes}


def mounted_below(mounts, directory):
    """Return those below a directory of the ``mounts`` that a Look returned."""
    # "0" comes next to "/".
    return _between(mounts, f"{directory}/", f"{directory}0")


def _between(mounts, first, end):
    return mounts[bisect.bisect_left(mounts, (first,)):bisect.bisect_left(mounts, (end,))]


def mounted_at_or_below(path):
    """Tell whether a file system is mounted at a path or somewhere below it."""
    # Format: proc_pid_mountinfo(5); blanks and the like in the path are written as octal numbers.
    place = os.fsencode(os.path.realpath(path.parent) + f"/{path.name}")
    with open("/proc/self/mountinfo", "rb") as mounted:
        for line in mounted:
            where = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
            if where == place or where.startswith(place + b"/"):
                return True
    return False


def within(name, places):
    """Tell whether a member's name is one of the places or lies below one."""
    return any(place == "." or name == place or name.startswith(f"{place}/") for place in places)


def _mapping(value):
    return value if isinstance(value, dict) else {}


def _list(value):
    return value if isinstance(value, list) else []
