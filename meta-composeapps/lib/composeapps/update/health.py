# SPDX-License-Identifier: MIT
"""The health gate: a version is good when all its services were well for the soak time.

A service with a healthcheck is well while dockerd calls it healthy, one without while it runs. One
that did its work and ended with status 0 is well too, when its restart policy lets it rest. A
restart in between begins the soak time anew, also one so short that nobody saw the service down:
the container's StartedAt and RestartCount tell.
"""

import time

from composeapps.app import compose
from composeapps.engine import owned
from composeapps.engine.labels import label
from composeapps.errors import EngineError, NotRunningError
from composeapps.installed import expected, inputs
from composeapps.installed.install import app_directory

# Seconds between two looks at the containers: soon at first, for the services that start quickly.
_INTERVALS = (0.1, 0.2, 0.3, 0.5)
_LONGEST = 1.0


def wait(app, engine, config, soak, timeout, notify=lambda text: None):
    """Wait until an app was well for a time.

    Arguments:
        app: the App whose services were started.
        engine: the Engine.
        config: the Config, for where the app is unpacked.
        soak: for how many seconds all of its services must be well without a break.
        timeout: seconds that they may take to become well; a service that becomes unwell later than
            that has failed, whatever is left of the soak time.
        notify: called with a line of text when the soak time begins.

    Raises NotRunningError naming the service, its state and the last line of its log: at the end of
    the timeout, or as soon as a service ended for good with another status than 0. Raises EngineError
    when dockerd did not answer at the end of the timeout.
    """
    services = compose.services(app.compose, f"app {app.ref}")
    deadline, intervals = time.monotonic() + timeout, iter(_INTERVALS)
    since, before, last = None, {}, None
    while True:
        failure = None
        try:
            problem, final, found = look(app, engine, config, services)
        except EngineError as err:
            # A dockerd that restarts may come back in time.
            problem, final, found, failure = "dockerd does not answer", False, {}, err
        now = time.monotonic()
        if problem is None and since is not None and found != before:
            last, since = _unsteady(app, engine, before, found), None
        if problem is None:
            if since is None and now >= deadline and last is not None:
                raise NotRunningError(last)
            if since is None:
                since, before = now, found
                if soak:
                    notify(f"{app.ref.app_name}: all services are well, watching them for {soak} s")
            if now - since >= soak:
                return
        else:
            if final or now >= deadline:
                raise failure or NotRunningError(problem)
            last, since = problem, None
        time.sleep(next(intervals, _LONGEST))


def _unsteady(app, engine, before, found):
    """Return the sentence about a service whose container was replaced or restarted."""
    identifier = next((each for each in found if before.get(each) != found[each]), next(iter(before), ""))
    service = (found.get(identifier) or before.get(identifier) or ("",))[0]
    words = owned.last_line(engine, identifier)
    return f"app {app.ref.app_name}: service {service} does not keep running, it restarts again and again{words}"


def look(app, engine, config, services):
    """Look at an app's services once: those that a start brings up, and those that have a container of this version.

    Returns (the sentence about the first service that is not well or None, whether waiting cannot help
    it, {container: what changes when it is restarted}). Raises EngineError.
    """
    directory = app_directory(config, app.ref)
    containers, variables = owned.containers(engine, directory), inputs.environment_of(config, app.ref)
    problem, final, identity = None, False, {}
    for service in services:
        found, count = expected.counted(service, containers.get(service.name, []), variables)
        if len(found) < count and problem is None:
            problem = f"app {app.ref.app_name}: service {service.name} has " + (
                f"{len(found)} of {count} containers" if found else "no container")
        for container in found:
            identity[container["Id"]] = (service.name, container["State"].get("StartedAt"),
                                         container.get("RestartCount"))
            what, hopeless = _problem(service, container)
            if what is not None and (problem is None or hopeless and not final):
                problem = f"app {app.ref.app_name}: service {service.name} {what}{owned.last_words(engine, container)}"
                final = hopeless
    return problem, final, identity


def _problem(service, container):
    """Return (what is wrong with a container or None, whether waiting cannot help)."""
    state = container["State"]
    if label(container, compose.CONFIG_HASH) != service.config_hash:
        return "is still of another version", False
    status, code = state.get("Status"), state.get("ExitCode")
    if status == "running":
        health = (state.get("Health") or {}).get("Status") or "none"
        return (None, False) if health in ("none", "healthy") else (f"is {_HEALTH.get(health, health)}", False)
    if status == "exited" and expected.may_rest(container):
        # With on-failure this is the end as well: dockerd has no more attempts left, or none to make.
        return (None, False) if expected.is_finished(container) else (f"ended with status {code}", True)
    restarts = container.get("RestartCount") or 0
    if status == "restarting":
        return f"crashes again and again (status {code}, {restarts} restarts)", False
    return f"is {status} (status {code})", False


_HEALTH = {"starting": "not healthy yet: its healthcheck did not succeed once"}
