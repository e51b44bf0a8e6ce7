# SPDX-License-Identifier: MIT
"""The health gate: a version is good when all its services were well for the soak time.

A service with a healthcheck is well while dockerd calls it healthy, one without while it runs. One
that did its work and ended with status 0 is well too, when its restart policy lets it rest. A
restart in between begins the soak time anew, also one so short that nobody saw the service down:
dockerd tells of each end of a container while it is watched.
"""

import contextlib
import functools
import time

from composeapps.app import compose
from composeapps.engine import owned
from composeapps.engine.events import Events
from composeapps.engine.labels import SERVICE, WORKING_DIR, label
from composeapps.engine.look import Look, behind
from composeapps.errors import EngineError, NotRunningError
from composeapps.installed import expected, inputs
from composeapps.installed.install import app_directory

# Seconds between two looks at the containers, at least: soon at first, for the services that start quickly.
_INTERVALS = (0.1, 0.2, 0.3, 0.5)
_SHORTEST = 1.0
# And at most, should dockerd have told of nothing.
_LONGEST = 5.0
# What changes how a service is.
_KINDS = ("create", "destroy", "start", "die", "oom", "pause", "unpause", "rename", "health_status")
# What tells that a container does not run any more, or runs again.
_BREAKS = ("die", "start")


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
    services, engine = compose.services(app.compose, f"app {app.ref}"), behind(engine)
    deadline, intervals = time.monotonic() + timeout, iter(_INTERVALS)
    since, before, last, first = None, {}, None, True
    with _Watch(engine, app_directory(config, app.ref)) as watch:
        while True:
            failure, broken = None, {}
            try:
                # Who only looks once need not watch.
                watching = soak or not first
                broken = watch.broken() if watching else {}
                if since is None:
                    broken = {}
                problem, final, found = look(app, engine, config, services)
                broken |= watch.broken() if watching else {}
            except EngineError as err:
                # A dockerd that restarts may come back in time.
                problem, final, found, failure = "dockerd does not answer", False, {}, err
            now, first = time.monotonic(), False
            if problem is not None:
                if final or now >= deadline:
                    raise failure or NotRunningError(problem)
                last, since = problem, None
            elif broken or since is not None and found != before:
                last, since = _unsteady(app, engine, before, found, broken), None
            elif since is None and (now < deadline or last is None):
                since, before = now, found
                if soak:
                    notify(f"{app.ref.app_name}: all services are well, watching them for {soak} s")
            if since is not None and now - since >= soak:
                return
            if since is None and now >= deadline:
                raise NotRunningError(last)
            rest = deadline - now if since is None else soak - (now - since)
            watch.wait(next(intervals, _SHORTEST), min(_LONGEST, rest))


class _Watch:
    """What dockerd tells of an app's containers meanwhile."""

    def __init__(self, engine, directory):
        self._engine, self._label = engine, f"{WORKING_DIR}={directory}"
        self._events, self._broken, self._lost, self._end = None, {}, None, contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._end.close()

    def broken(self):
        """Return {container: its service} of those that ended or were started since the last time; it watches on.

        Raises EngineError, also once when dockerd was away meanwhile.
        """
        lost, self._lost = self._lost, None
        if lost is not None:
            raise lost
        if self._events is None:
            self._events = self._end.enter_context(Events(self._engine, self._label, _KINDS))
        self._hear(0)
        found, self._broken = self._broken, {}
        return found

    def wait(self, shortest, longest):
        """Return when something has happened, but not before ``shortest`` nor after ``longest`` seconds."""
        begun = time.monotonic()
        if self._events is not None:
            try:
                self._hear(longest)
            except EngineError as err:
                self._lost = err
        time.sleep(max(0.0, min(shortest, longest) - (time.monotonic() - begun)))

    def _hear(self, seconds):
        try:
            for event in self._events.wait(seconds):
                actor = event.get("Actor") or {}
                if event.get("Action") in _BREAKS:
                    self._broken[str(actor.get("ID"))] = str((actor.get("Attributes") or {}).get(SERVICE) or "")
        except EngineError:
            # The next look begins anew.
            self._end.close()
            self._events = None
            raise


def _unsteady(app, engine, before, found, broken):
    """Return the sentence about a service whose container was replaced or restarted."""
    identifier = next(iter(broken), None) or next(iter(set(found) ^ set(before)), "")
    service = found.get(identifier) or before.get(identifier) or broken.get(identifier)
    words = owned.last_line(engine, identifier)
    return f"app {app.ref.app_name}: service {service} does not keep running, it restarts again and again{words}"


def look(app, engine, config, services):
    """Look at an app's services once: those that a start brings up, and those that have a container of this version.

    Returns (the sentence about the first service that is not well or None, whether waiting cannot help
    it, {container: its service}). Raises EngineError.
    """
    directory = app_directory(config, app.ref)
    seen = Look(engine)
    # Not the lists of all apps' containers.
    seen.changed(directory)
    seen.ahead(functools.partial(seen.ended, f"{WORKING_DIR}={directory}"))
    containers, variables = owned.containers(seen, directory), inputs.environment_of(config, app.ref)
    problem, final, identity = None, False, {}
    for service in services:
        found, count = expected.counted(service, containers.get(service.name, []), variables)
        if len(found) < count and problem is None:
            problem = f"app {app.ref.app_name}: service {service.name} has " + (
                f"{len(found)} of {count} containers" if found else "no container")
        for container in found:
            identity[container["Id"]] = service.name
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
