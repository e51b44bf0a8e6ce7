# SPDX-License-Identifier: MIT
"""Running installed apps with docker compose, and asking dockerd how they are."""

from typing import NamedTuple

from composeapps.app import compose
from composeapps.engine.client import Engine
from composeapps.engine.labels import SERVICE, WORKING_DIR
from composeapps.installed.install import app_directory
from composeapps.installed.project import Project


class ServiceStatus(NamedTuple):
    """One service of an app as dockerd sees it now.

    ``state`` is the container's (running, exited, …) or "missing"; ``health`` is healthy, unhealthy,
    starting or "" for a service without a check; ``current`` tells whether the container was made
    from the installed version's definition; ``finished`` whether it did its work and may rest: it
    ended with status 0, and its restart policy leaves it so. ``expected`` is False for a service that
    a start leaves out.
    """

    name: str
    image: str
    state: str
    health: str
    status: str
    container: str
    current: bool
    finished: bool = False
    expected: bool = True

    @property
    def good(self):
        """Whether it runs and is not unhealthy, or is finished, and is of the installed version."""
        if self.state == "missing":
            return not self.expected
        return (self.finished or self.state == "running" and self.health != "unhealthy") and self.current


def start(app, state, states, config):
    """Start an installed app's services, or bring them to the installed version; return when they started.

    Only what is missing, is not running or is of another version is touched. Raises EngineError with
    compose's own last words, CorruptError or NotFoundError when the store has lost the app's bundle.
    """
    from composeapps.switching import switch

    switch.start(project_of(app, state, states, config))
    if state.stopped:
        states.put(app.ref.app_name, state._replace(stopped=False))


def stop(app, state, states, config):
    """Stop an app's services and remember that it should stay stopped."""
    # First the wish, then the deed: after a power cut in between, the app stays stopped.
    if not state.stopped:
        states.put(app.ref.app_name, state._replace(stopped=True))
    Project(app, state.images, states, config, Engine(config.docker_host)).compose("stop")


def project_of(app, state, states, config):
    """Return the Project of an installed app, ready to be started."""
    from composeapps.store.store import Store
    from composeapps.switching import definition

    described = definition.from_store(app, Store(config.store))
    return Project(app, state.images, states, config, Engine(config.docker_host), described)


def status(app, engine, config):
    """Return the ServiceStatus of each of an app's services, in the compose file's order."""
    return service_states(app.ref, compose.services(app.compose, f"app {app.ref}"), engine, config)


def service_states(ref, services, engine, config):
    """Return the ServiceStatus of each of the compose.Services of the app ``ref``; raises EngineError."""
    directory = app_directory(config, ref)
    containers = {}
    for listed in engine.containers(f"{WORKING_DIR}={directory}"):
        # The list lags behind a container's own state for a moment after each change.
        container = engine.container(listed["Id"])
        if container is not None:
            labels = container["Config"].get("Labels") or {}
            containers.setdefault(labels.get(SERVICE), []).append((container, labels, listed.get("Status") or ""))
    result = []
    for service in services:
        # Several replicas: the one in the worst state speaks for the service.
        found = sorted(containers.get(service.name, []), key=lambda each: each[0]["State"]["Status"] == "running")
        if not found:
            result.append(ServiceStatus(service.name, service.image, "missing", "", "", "", False,
                                        expected=service.expected))
            continue
        container, labels, text = found[0]
        state = container["State"]
        health = (state.get("Health") or {}).get("Status") or ""
        current = labels.get(compose.CONFIG_HASH, "") == service.config_hash
        policy = ((container.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no"
        finished = state["Status"] == "exited" and state.get("ExitCode") == 0 and policy in ("no", "on-failure")
        result.append(ServiceStatus(service.name, service.image, state["Status"], "" if health == "none" else health,
                                    text, container["Id"][:12], current, finished, service.expected))
    return result
