# SPDX-License-Identifier: MIT
"""Taking an app away that was never committed: its first version failed, so there is none to go back to."""

import os
import re
import shutil

from composeapps import compose, durable, install
from composeapps.errors import CorruptError, NotFoundError, UsageError
from composeapps.runtime import WORKING_DIR

PROJECT = "com.docker.compose.project"


def take_away(parts, ref):
    """Remove an app's containers, its networks and its unpacked bundle.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        ref: the Reference of the version that was to be installed.

    Named volumes stay, and so do the blobs in the store. It can be repeated. Raises EngineError,
    StorageError.
    """
    engine, directory = parts.engine, install.app_directory(parts.config, ref)
    projects = {_project(parts.store, ref, directory)}
    for container in engine.containers(f"{WORKING_DIR}={directory}"):
        projects.add((container.get("Labels") or {}).get(PROJECT))
        engine.stop(container["Id"])
        engine.remove("containers", container["Id"], force="1", v="1")
    for project in sorted(filter(None, projects)):
        # A project of the same name elsewhere has containers that still need its networks.
        if not engine.containers(f"{PROJECT}={project}"):
            for network in engine.networks(f"{PROJECT}={project}"):
                engine.remove("networks", network["Id"])
    with durable.storage_errors(f"removing the bundle of app {ref.app_name}"):
        if os.path.lexists(directory):
            shutil.rmtree(directory)
            durable.fsync_directory(directory.parent)


def _project(store, ref, directory):
    """Return the name by which compose knows the app: its own, else its directory's in compose's alphabet."""
    try:
        app = install.load_from_store(store, ref)
        name = compose.load(app.compose, "the compose file").get("name")
    except (CorruptError, NotFoundError, UsageError):
        name = None
    return str(name or re.sub("[^a-z0-9_-]", "", directory.name.lower()).lstrip("_-"))
