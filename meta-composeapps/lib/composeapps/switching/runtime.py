# SPDX-License-Identifier: MIT
"""Running installed apps with docker compose, and asking dockerd how they are."""

from typing import NamedTuple

from composeapps.app import compose
from composeapps.engine import owned
from composeapps.engine.labels import label
from composeapps.installed import expected, inputs
from composeapps.installed.placed import Placed

# The keys of services with which docker compose has more to do at a stop than to stop a container.
_AT_EACH_STOP = {"pre_stop", "provider"}
# So many containers of an app are stopped at a time: each may take its time to end, and costs nothing meanwhile.
_STOPS = 32


class ServiceStatus(NamedTuple):
    """One service of an app as dockerd sees it now.

    ``state`` is the container's (running, exited, …) or "missing"; ``health`` is healthy, unhealthy,
    starting or "" for a service without a check; ``current`` tells whether the container was made
    from the installed version's definition; ``finished`` whether it did its work and may rest.
    ``expected`` is with how many containers a start brings it up, ``lacking`` how many of these there are not.
    """

    name: str
    image: str
    state: str
    health: str
    status: str
    container: str
    current: bool
    finished: bool = False
    expected: int = 1
    lacking: int = 0

    @property
    def good(self):
        """Whether all of it runs and is not unhealthy, or is finished, and is of the installed version."""
        if self.state == "missing":
            return not self.expected
        well = self.finished or self.state == "running" and self.health != "unhealthy"
        return well and self.current and not self.lacking


def start(app, state, states, config, engine=None):
    """Start an installed app's services, or bring them to the installed version; return when they started.

    Arguments are those of ``begin``; raises what that does, and what it returns.
    """
    work = begin(app, state, states, config, engine)
    if work is not None:
        work()


def begin(app, state, states, config, engine=None):
    """Find out whether an installed app runs as it should; return what starts its services, None when it does.

    Arguments:
        app, state: the App and its AppState.
        states: the StateDirectory; its lock is held by the caller.
        config: the Config.
        engine: the Engine, or a Look that several apps share.

    Only what is missing, is not running or is of another version is touched; what did its work rests. What is
    returned takes its time, and may be called by another thread. It raises EngineError with compose's own last words.
    Raises EngineError, CorruptError or NotFoundError when the store has lost the app's bundle, UsageError when another
    app has the name of its project or of a container.
    """
    from composeapps.switching import switch

    project = project_of(app, state, states, config, engine)
    work = switch.begin(project, project.rested() if state.stopped else None)
    if not state.stopped:
        return work

    def wake():
        if work is not None:
            work()
        states.put(app.ref.app_name, state._replace(stopped=False))

    return wake


def stop(app, state, states, config, engine=None):
    """Stop an app's services, in the reverse order of their dependencies, and remember that it should stay stopped.

    Arguments are those of ``start``. Raises EngineError, StorageError.
    """
    from composeapps.engine.client import Engine
    from composeapps.engine.look import at
    from composeapps.installed.project import Project

    project = Project(app, state.images, states, config, at(engine or Engine(config.docker_host)))
    # First the wish, then the deed: after a power cut in between, the app stays stopped.
    if not state.stopped:
        project.note_rested()
        states.put(app.ref.app_name, state._replace(stopped=True))
    services = compose.pinned(app.compose, f"app {app.ref}")["services"]
    # docker compose runs hooks before it stops a container, which dockerd knows nothing of, and is asked as well where
    # one of its own, that outlived its agent, may still be at work: it is ended first. What else it does, dockerd
    # does: a container's stop_signal and stop_grace_period are in its configuration.
    if project.was_cut_off() or any(_AT_EACH_STOP & service.keys() for service in services.values()):
        project.compose("stop")
    else:
        _stop_containers(project, services)


def _stop_containers(project, services):
    from composeapps.engine import client
    from composeapps.switching import definition

    levels = definition.levels({name: definition.started_after(value) for name, value in services.items()})
    waiting = {}
    for name, found in project.containers().items():
        running = [each["Id"] for each in found if each["State"].get("Running") or each["State"].get("Restarting")]
        # Those of services that there are no more need the others, if anybody does.
        waiting.setdefault(levels.get(name, len(levels)), []).extend(running)
    # dockerd answers when a container has ended, which may take as long as it is given.
    engine = client.Engine(project.engine.host, timeout=max(client.SILENCE, project.time_limit))
    try:
        for level in sorted(waiting, reverse=True):
            client.each(engine.stop, waiting[level], _STOPS)
    finally:
        project.engine.changed(project.directory, project.name)


def project_of(app, state, states, config, engine=None):
    """Return the Project of an installed app, ready to be started; the arguments are those of ``start``."""
    from composeapps.engine.client import Engine
    from composeapps.installed.project import Project
    from composeapps.store.store import Store
    from composeapps.switching import definition

    described = definition.from_store(app, Store(config.store), config)
    return Project(app, state.images, states, config, engine or Engine(config.docker_host), described)


def status(app, engine, config):
    """Return the ServiceStatus of each of an app's services, in the compose file's order."""
    return service_states(app.ref, compose.services(app.compose, f"app {app.ref}"), engine, config)


def service_states(ref, services, engine, config):
    """Return the ServiceStatus of each of the compose.Services of the app ``ref``; raises EngineError."""
    directory = Placed(config.compose_root, ref.app_name).directory
    containers, variables, result = owned.containers(engine, directory), inputs.environment_of(config, ref), []
    for service in services:
        found, count = expected.counted(service, containers.get(service.name, []), variables)
        # Of several the one in the worst state speaks for the service.
        one = min((_one(service, container) for container in found), key=_rank, default=None)
        if one is None:
            result.append(ServiceStatus(service.name, service.image, "missing", "", "", "", False, False, count, count))
            continue
        lacking = max(0, count - len(found))
        text = f"{one.status}, {len(found)} of {count} containers" if lacking else one.status
        result.append(one._replace(status=text, expected=count, lacking=lacking))
    return result


def _one(service, container):
    """Return the ServiceStatus that a service with one container has."""
    state = container["State"]
    health = (state.get("Health") or {}).get("Status") or ""
    return ServiceStatus(
        service.name, service.image, state["Status"], "" if health == "none" else health, container["Said"],
        container["Id"][:12], label(container, compose.CONFIG_HASH) == service.config_hash,
        expected.is_finished(container))


def _rank(status):
    """Return what sorts the states of a service's containers, the worst one first."""
    return status.good, status.state == "running", status.health != "starting"
