# SPDX-License-Identifier: MIT
"""Old-style apps that lie on this device: which there are, and which of them run."""

import os
from pathlib import Path
from typing import NamedTuple

from composeapps import COMPOSE_FILE, beneath
from composeapps.app import compose
from composeapps.app.bundle import MAX_COMPOSE
from composeapps.app.dockerapp import COMPOSE, DOCKERAPP, SUFFIX
from composeapps.engine.labels import WORKING_DIR
from composeapps.errors import StorageError, UsageError


class OldStyle(NamedTuple):
    """An old-style app on this device: its ``name``, ``kind``, ``directory``, and how many containers run."""

    name: str
    kind: str
    directory: Path
    running: int


def find(compose_root, states, engine):
    """Return the old-style apps below the compose root, those without containers too, sorted by name.

    Arguments:
        compose_root: where the device's apps are unpacked (Path).
        states: the StateDirectory; what it knows is installed from the store and not old-style.
        engine: the Engine, or None when dockerd is not to be asked.

    Raises EngineError.
    """
    running = {}
    for container in engine.containers(WORKING_DIR) if engine is not None else ():
        if container.get("State") == "running":
            directory = (container.get("Labels") or {}).get(WORKING_DIR)
            running[directory] = running.get(directory, 0) + 1
    known, found = set(states.names()), []
    try:
        entries = sorted(os.scandir(compose_root), key=lambda e: e.name)
    except FileNotFoundError:
        return []
    except OSError as err:
        raise StorageError(f"{compose_root} cannot be read: {err.strerror}") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and entry.name not in known and not entry.name.startswith("."):
            directory = Path(entry.path)
            kind = _kind(directory)
            if kind:
                found.append(OldStyle(entry.name, kind, directory, running.get(str(directory), 0)))
    return found


def _kind(directory):
    """Return DOCKERAPP or COMPOSE for the directory of an old-style app, None for any other."""
    if any(directory.glob(f"*{SUFFIX}")):
        return DOCKERAPP
    try:
        with beneath.opened(directory) as root:
            data = root.read(COMPOSE_FILE, MAX_COMPOSE)
        value = compose.load(data, str(directory))
    except OSError:
        return None
    except UsageError:
        # Whatever it is, docker compose does not run it.
        return None
    images = [str(service.get("image") or "") for service in value["services"].values()]
    return None if all("@sha256:" in image for image in images) else COMPOSE
