# SPDX-License-Identifier: MIT
"""Hand-over: the new containers of a service are started beside the old ones, which go when those are ready.

A new container is ready when its healthcheck says so, when it writes one of ``PATHS``, or, when it has
no healthcheck, at the end of the time limit. It fails when it ends, or is not healthy at that time;
the old containers are not touched then. An old container that holds its update lock is waited for as
well, and a lock that is not released within the time limit makes the hand-over fail.

A power cut leaves old and new containers side by side. The next run finds the new ones by their
fingerprint and goes on with waiting, with a time limit of its own.
"""

import time

from composeapps.engine.client import Engine
from composeapps.errors import EngineError, NotRunningError, UpdateLockedError
from composeapps.switching import locks

# By one of these the new container says that it has taken over.
PATHS = ("/tmp/composeapps/handover-complete", "/tmp/balena/handover-complete", "/tmp/resin/resin-kill-me")
# Seconds between two looks, and that dockerd may take for one.
_INTERVAL, _ANSWER = 0.25, 10


def run(project, service, old, is_new, end, force=False, notify=lambda text: None):
    """Hand a service over.

    Arguments:
        project: the Project of the new version.
        service: its definition.Service.
        old: its containers that are to go, as dockerd describes them.
        is_new: called with a container; tells whether it is of the new version.
        end: called with a container, which it stops and removes.
        force: override the update locks of the old containers.
        notify: called with a line of text.

    Raises NotRunningError when a new container fails, UpdateLockedError when an old one holds its lock
    for too long, EngineError: the old containers run then as before, and the new ones are gone.
    """
    deadline = time.monotonic() + service.handover_timeout
    count = service.replicas if service.active else 1
    what = f"app {project.app_name}: service {service.name}"
    notify(f"{project.app_name}: starting the new {service.name} beside the old one, "
           f"for {service.handover_timeout:g} s at most")
    started = []
    try:
        try:
            # One that an earlier run left in the middle of its start, or that failed, is made anew.
            for container in project.containers().get(service.name, []):
                if is_new(container) and not container["State"].get("Running"):
                    end(container)
            project.compose("up", "--detach", "--no-deps", "--no-build", "--quiet-pull", "--no-recreate",
                            "--scale", f"{service.name}={len(old) + count}", service.name)
        finally:
            started = [each for each in project.containers().get(service.name, []) if is_new(each)]
        engine = Engine(project.engine.host, timeout=_ANSWER)
        _wait(what, engine, started, deadline)
        _wait_for_locks(what, engine, old, deadline, force, notify)
    except BaseException:
        for container in started:
            _discard(end, container, notify)
        raise
    for container in old:
        end(container)


def _wait(what, engine, containers, deadline):
    waiting = {container["Id"] for container in containers}
    if not waiting:
        raise NotRunningError(f"{what}: hand-over failed: there is no new container")
    while waiting:
        last = time.monotonic() >= deadline
        for identifier in sorted(waiting):
            if _ready(what, engine, identifier, last):
                waiting.discard(identifier)
        if waiting:
            time.sleep(max(0.0, min(_INTERVAL, deadline - time.monotonic())))


def _ready(what, engine, identifier, last):
    """Tell whether a new container is ready; ``last`` says that the time limit is over."""
    container = engine.container(identifier)
    if container is None:
        raise NotRunningError(f"{what}: hand-over failed: the new container is gone")
    state = container["State"]
    if not state.get("Running") or state.get("Restarting") or container.get("RestartCount"):
        raise NotRunningError(f"{what}: hand-over failed: the new container ended with status {state.get('ExitCode')}; "
                              "the old one still runs")
    health = (state.get("Health") or {}).get("Status") or "none"
    if health == "unhealthy":
        raise NotRunningError(f"{what}: hand-over failed: the new container is unhealthy; the old one still runs")
    if health == "healthy" or _says_so(engine, container):
        return True
    if last and health != "none":
        raise NotRunningError(f"{what}: hand-over failed: the new container did not become healthy in time; "
                              "the old one still runs")
    return last


def _says_so(engine, container):
    return any(locks.exists(engine, container, path) for path in PATHS)


def _wait_for_locks(what, engine, containers, deadline, force, notify):
    told = False
    while True:
        held = [lock for container in containers if (lock := _lock(engine, container)) is not None]
        if not held:
            return
        if force:
            notify(f"{what}: {locks.describe(held[0])}: overridden")
            return
        if time.monotonic() >= deadline:
            raise UpdateLockedError(f"hand-over failed: {locks.describe(held[0])}")
        if not told:
            notify(f"{what}: ready to hand over, but {locks.describe(held[0])}")
            told = True
        time.sleep(max(0.0, min(_INTERVAL, deadline - time.monotonic())))


def _lock(engine, container):
    now = engine.container(container["Id"])
    return locks.held(engine, now) if now is not None else None


def _discard(end, container, notify):
    try:
        end(container)
    except EngineError as err:
        notify(str(err))
