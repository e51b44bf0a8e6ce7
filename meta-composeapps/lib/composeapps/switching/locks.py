# SPDX-License-Identifier: MIT
"""Update locks: files by which a container forbids that its service is touched.

A container holds its lock while one of ``PATHS`` exists in it; its first line may say whose it is. The
files are looked up through dockerd, so that neither the image nor the host needs anything for it. A
lock in a container that does not run counts for nothing, nor does one that is older than the
container's present run: that is what a crash left.

dockerd does not see what lies on a tmpfs in a container. There the container's processes are the way
in, which takes the right to trace them (CAP_SYS_PTRACE); without it the caller is told that a lock
could not be looked for.
"""

import contextlib
import os
import time
from datetime import datetime
from typing import NamedTuple

from composeapps import beneath
from composeapps.engine import client
from composeapps.engine.labels import SERVICE, label
from composeapps.errors import UpdateLockedError

PATHS = ("/tmp/composeapps/updates.lock", "/tmp/balena/updates.lock", "/tmp/resin/resin-updates.lock")
_LONGEST_LINE = 200


class Lock(NamedTuple):
    """A lock that is held: by which service and container (its ID), the file, its first line, since when (POSIX)."""

    service: str
    container: str
    path: str
    holder: str
    since: float


class _Hidden(Exception):
    """Nobody tells whether there is such a file."""


def held(engine, container, notify=lambda text: None):
    """Return the Lock that a container holds, or None.

    Arguments:
        engine: the Engine.
        container: what ``engine.container`` returned.
        notify: called with a sentence when a place cannot be looked at.

    Raises EngineError.
    """
    return _held(engine, container, [_seen(engine, container, path) for path in _paths_of(container)], notify)


def _paths_of(container):
    """Return where a container may hold its lock now."""
    return PATHS if container["State"].get("Running") else ()


def _seen(engine, container, path):
    """Return what ``present`` does, or _Hidden."""
    try:
        return present(engine, container, path)
    except _Hidden as err:
        return err


def _held(engine, container, seen, notify):
    """Return the Lock that a container holds, or None; ``seen`` is what ``_seen`` returned of each of its paths."""
    for path, since in zip(_paths_of(container), seen, strict=True):
        if isinstance(since, _Hidden):
            notify(f"service {label(container, SERVICE)}: {os.path.dirname(path)} lies on a tmpfs of its container, "
                   "where no lock can be seen: put a volume there")
        elif since is not None and not _left_behind(container, since):
            return Lock(label(container, SERVICE), container["Id"], path, _first_line(engine, container, path), since)
    return None


def check(engine, containers, force=False, notify=lambda text: None):
    """Raise UpdateLockedError when one of the containers holds its lock.

    Arguments:
        engine: the Engine, or a Look.
        containers: what a list, or dockerd by itself, told of each; each one is inspected now.
        force: say so through ``notify``, and return.
        notify: called with a sentence.
    """
    # dockerd is asked for all of them side by side.
    found = [each for each in client.each(engine.container, [each["Id"] for each in containers]) if each is not None]
    places = [(container, path) for container in found for path in _paths_of(container)]
    seen = iter(client.each(lambda place: _seen(engine, *place), places))
    for container in found:
        lock = _held(engine, container, [next(seen) for _path in _paths_of(container)], notify)
        if lock is not None and not force:
            raise UpdateLockedError(f"{describe(lock)}: wait until it is released, or override it with --force")
        if lock is not None:
            notify(f"{describe(lock)}: overridden")


def describe(lock):
    """Return a lock as a part of a sentence: whose it is, where and since when."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(lock.since))
    holder = f", which says '{lock.holder}'," if lock.holder else ""
    return (f"service {lock.service} holds its update lock since {since}: {lock.path} in container "
            f"{lock.container[:12]}{holder} forbids to touch it")


def present(engine, container, path):
    """Return when a file in a running container was written last (POSIX), None when there is none.

    Raises _Hidden when it lies on a tmpfs and there is no way in.
    """
    if _is_hidden(container, path):
        directory = _directory_of(container, path)
        if directory is None:
            return None
        descriptor, name = directory
        try:
            return os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return None
        finally:
            os.close(descriptor)
    found = engine.file_status(container["Id"], path)
    return instant(found.get("mtime")) if found is not None else None


def exists(engine, container, path):
    """Tell whether a running container has written a file, as far as that can be seen.

    A file from before its present run, left on a volume by the container before it, is none of its own.
    """
    try:
        since = present(engine, container, path)
    except _Hidden:
        return False
    return since is not None and not _left_behind(container, since)


def instant(text):
    """Return a time as dockerd writes it in seconds since the epoch; 0 for none."""
    try:
        return max(0.0, datetime.fromisoformat(str(text)).timestamp())
    except (ValueError, OverflowError):
        return 0.0


def _left_behind(container, since):
    """Tell whether a file was written before the container's present run."""
    state = container["State"]
    # The end of the run before, and not the begin of this one, which dockerd notes a moment late.
    before = instant(state.get("FinishedAt")) or instant(container.get("Created"))
    # A begin in the future: the clock was set back, and times tell nothing.
    return since <= before <= time.time()


def _first_line(engine, container, path):
    if _is_hidden(container, path):
        data = b""
        with contextlib.suppress(OSError, _Hidden, TypeError):
            descriptor, name = _directory_of(container, path)
            try:
                data = beneath.read_at(descriptor, name, 64 * 1024)
            finally:
                os.close(descriptor)
    else:
        data = engine.file_head(container["Id"], path, _LONGEST_LINE)
    lines = data[:_LONGEST_LINE].decode(errors="replace").splitlines()
    return "".join(c for c in lines[0] if c.isprintable()).strip() if lines else ""


def _is_hidden(container, path):
    """Tell whether a path lies on a tmpfs of the container's."""
    tmpfs = set((container.get("HostConfig") or {}).get("Tmpfs") or ())
    tmpfs |= {mount.get("Destination") for mount in container.get("Mounts") or () if mount.get("Type") == "tmpfs"}
    others = {mount.get("Destination") for mount in container.get("Mounts") or () if mount.get("Type") != "tmpfs"}
    # The innermost mount has the path.
    while path != "/":
        if path in others:
            return False
        if path in tmpfs:
            return True
        path = os.path.dirname(path)
    return False


def _directory_of(container, path):
    """Return (descriptor of the directory, name) of a path as the container's processes see it, or None.

    The caller closes the descriptor. No symbolic link is followed: what it leads to would be the host's.
    Raises _Hidden when there is no way in.
    """
    *parents, name = path.strip("/").split("/")
    try:
        descriptor = os.open(f"/proc/{_process_of(container)}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in parents:
            outer = descriptor
            try:
                descriptor = os.open(part, beneath.DIRECTORY, dir_fd=outer)
            finally:
                os.close(outer)
    except FileNotFoundError:
        return None
    except OSError:
        raise _Hidden from None
    return descriptor, name


def _process_of(container):
    """Return a process of the container, as this process sees them; raises _Hidden."""
    first = str(container["State"].get("Pid") or 0)
    # dockerd may count its processes otherwise, in a PID namespace of its own; so the name has to be right.
    for process in (first, *(name for name in os.listdir("/proc") if name.isdecimal())):
        with contextlib.suppress(OSError), open(f"/proc/{process}/cgroup") as groups:
            if container["Id"] in groups.read():
                return process
    raise _Hidden
