# SPDX-License-Identifier: MIT
"""Waiting for what a service's ``depends_on`` asks for.

docker compose waits for the services that it is given in one go. Those that are brought up in several,
since they are replaced in different ways or only some of them change, are waited for here, by the same
rules (Compose Specification, "depends_on").
"""

import time

from composeapps.engine import owned
from composeapps.errors import NotRunningError
from composeapps.switching.definition import COMPLETED, HEALTHY

_INTERVALS = (0.1, 0.2, 0.3, 0.5)
_LONGEST = 1.0


def for_conditions(project, names, limit, notify=lambda text: None):
    """Return when services may be started as far as others are concerned that are not among them.

    Arguments:
        project: the Project, with its definition.
        names: the services that are to be started in one go.
        limit: seconds that it may take.
        notify: called with a line of text once it has to be waited.

    Raises NotRunningError when a condition cannot come true any more, or did not in time, EngineError.
    """
    definition, waiting = project.definition, {}
    for name in names:
        for needed, (condition, required) in definition.services[name].conditions.items():
            if condition in (HEALTHY, COMPLETED) and needed not in names and needed in definition.services:
                waiting[needed, condition] = waiting.get((needed, condition), False) or required
    deadline, intervals, told = time.monotonic() + limit, iter(_INTERVALS), False
    while waiting:
        containers = project.now({needed for needed, _condition in waiting})
        for needed, condition in list(waiting):
            done, problem = _look(project, condition, needed, containers)
            if problem is None and not done and time.monotonic() >= deadline:
                problem = f"did not become what is waited for ({condition}) within {limit:.0f} s"
            what = f"service {needed}, which {', '.join(names)} must wait for, {problem}"
            if problem and waiting[needed, condition]:
                raise NotRunningError(f"app {project.app_name}: {what}")
            if problem:
                notify(f"{project.app_name}: {what}; going on without it")
            if done or problem:
                del waiting[needed, condition]
        if waiting and not told:
            notify(f"{project.app_name}: waiting for {', '.join(sorted({needed for needed, _how in waiting}))}")
            told = True
        if waiting:
            time.sleep(next(intervals, _LONGEST))


def check_failed(project, names):
    """Raise NotRunningError when one of some services failed for which another one of them had to wait."""
    services = project.definition.services
    containers = project.now({needed for name in names for needed in services[name].conditions})
    for name in names:
        for needed, (condition, required) in services[name].conditions.items():
            if required and condition in (HEALTHY, COMPLETED) and containers.get(needed):
                _done, problem = _look(project, condition, needed, containers)
                if problem is not None:
                    raise NotRunningError(f"app {project.app_name}: service {needed}, which {name} must wait for, "
                                          f"{problem}")


def _look(project, condition, needed, containers):
    """Return (whether a condition of a service is true, why it will not come true or None)."""
    mine, replicas = containers.get(needed, []), project.definition.services[needed].replicas
    if not mine:
        return not replicas, "has no container" if replicas else None
    health = [(each["State"].get("Health") or {}).get("Status") or "none" for each in mine]
    ended = [each for each in mine if each["State"].get("Status") in ("exited", "dead")]
    failed = next((each for each in ended if each["State"].get("ExitCode")), None)
    if failed is not None:
        words = owned.last_words(project.engine, failed)
        return False, f"ended with status {failed['State']['ExitCode']}{words}"
    if condition == COMPLETED:
        return len(ended) == len(mine), None
    if "none" in health:
        return False, "has no healthcheck"
    if "unhealthy" in health:
        return False, f"is unhealthy{owned.last_words(project.engine, mine[health.index('unhealthy')])}"
    return (False, "does not run") if ended else (all(each == "healthy" for each in health), None)
