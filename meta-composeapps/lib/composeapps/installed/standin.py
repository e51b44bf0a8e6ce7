# SPDX-License-Identifier: MIT
"""Running and stopping an app whose version the store can no longer read: with what dockerd and the unpacked
bundle have.

Containers that are there are started as they are. Only for services without any does docker compose
make one, from the compose file that lies unpacked, if it is the one that the store's directory of the
version has as well.
"""

from typing import NamedTuple

from composeapps import COMPOSE_FILE, beneath
from composeapps.app import compose
from composeapps.engine import owned
from composeapps.errors import ComposeAppsError
from composeapps.installed import expected, inputs
from composeapps.installed.install import app_directory
from composeapps.installed.project import Project
from composeapps.oci.reference import Reference


class _Unpacked(NamedTuple):
    """What a Project has to know of an app."""

    ref: Reference
    compose: bytes


def start(ref, state, store, states, config, engine, notify=lambda text: None):
    """Start what there is of an app.

    Arguments:
        ref: the installed version's pinned Reference.
        state: its AppState.
        store: the Store.
        states: the StateDirectory; its lock is held by the caller.
        config: the Config.
        engine: the Engine.
        notify: called with a line of text for what cannot be started.

    Returns whether all services that are expected run, or have done their work. Raises EngineError when
    dockerd does not answer.
    """
    containers = _containers(ref, config, engine)
    for found in containers.values():
        for container in found:
            if not _well(container):
                try:
                    engine.start(container["Id"])
                except ComposeAppsError as err:
                    notify(f"{ref.app_name}: {err}")
    text = _compose(ref, store, config)
    if text is None:
        return False
    try:
        variables = expected.environment_in(app_directory(config, ref))
        wanted = [each.name for each in compose.services(text, f"app {ref}") if expected.count(each, variables)]
        missing = [name for name in wanted if name not in containers]
        if missing and state.images:
            images = {name: image for name, image in state.images.items() if image}
            project = Project(_Unpacked(ref, text), images, states, config, engine)
            project.claim()
            project.compose(
                "up", "--detach", "--no-deps", "--no-recreate", "--no-build", "--quiet-pull", *missing)
    except ComposeAppsError as err:
        notify(f"{ref.app_name}: {err}")
        return False
    containers = _containers(ref, config, engine)
    return all(any(map(_well, containers.get(name, ()))) for name in wanted)


def stop(ref, state, states, config, engine):
    """Stop an app's containers and remember that it should stay stopped; raises EngineError, StorageError.

    Arguments are those of ``start``.
    """
    if not state.stopped:
        states.put(ref.app_name, state._replace(stopped=True))
    for found in _containers(ref, config, engine).values():
        for container in found:
            if container["State"].get("Running"):
                engine.stop(container["Id"])


def _containers(ref, config, engine):
    return owned.containers(engine, app_directory(config, ref))


def _well(container):
    """Whether a container runs, or did its work and may rest."""
    return container["State"].get("Status") == "running" or expected.is_finished(container)


def _compose(ref, store, config):
    """Return the compose file that lies unpacked, None when it is not the version's, as far as that can be told."""
    placed, found = inputs.of(config, ref)
    if found is not None:
        return beneath.read_regular(placed.path(f"{inputs.FILES}/{found.compose}"))
    text = placed.compose_file()
    if text is None:
        return None
    try:
        return text if beneath.read_regular(store.app_dir(ref) / COMPOSE_FILE) == text else None
    except OSError:
        return text
