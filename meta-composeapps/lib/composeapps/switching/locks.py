# SPDX-License-Identifier: MIT
"""Update locks: files by which a container forbids that its service is touched.

A container holds its lock while one of ``PATHS`` exists in it; its first line may say whose it is. The
files are looked up through dockerd, so that neither the image nor the host needs anything for it. A
lock in a container that does not run, or older than the container's last start, is what a crash left
and counts for nothing.
"""

from dataclasses import dataclass

PATHS = ("/tmp/composeapps/updates.lock", "/tmp/balena/updates.lock", "/tmp/resin/resin-updates.lock")


@dataclass(frozen=True)
class Lock:
    """A lock that is held: by which service and container (its ID), the file, its first line, since when (POSIX)."""

    service: str
    container: str
    path: str
    holder: str
    since: float


def held(engine, container):
    """Return the Lock that a container holds, or None.

    Arguments:
        engine: the Engine.
        container: what ``engine.container`` returned.

    Raises EngineError.
    """
    return None


def check(engine, containers, force=False, notify=lambda text: None):
    """Raise UpdateLockedError when one of the containers (inspected) holds its lock.

    With ``force`` the locks are reported through ``notify`` and overridden. Raises EngineError.
    """
