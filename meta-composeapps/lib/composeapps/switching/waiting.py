# SPDX-License-Identifier: MIT
"""Waiting for what a service's ``depends_on`` asks for.

docker compose waits for the services that it is given in one go. Those that are brought up in several,
since they are replaced in different ways or only some of them change, are waited for here, by the same
rules (Compose Specification, "depends_on").
"""

import time

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
        containers = project.containers()
        for needed, condition in list(waiting):
            done, problem = _look(condition, containers.get(needed, []), definition.services[needed].replicas)
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


def _look(condition, containers, replicas):
    """Return (whether a condition is true, why it will not come true or None) of a service's containers."""
    if not containers:
        return not replicas, "has no container" if replicas else None
    if condition == COMPLETED:
        ended = [each["State"] for each in containers if each["State"].get("Status") in ("exited", "dead")]
        failed = next((state.get("ExitCode") for state in ended if state.get("ExitCode")), None)
        if failed is not None:
            return False, f"ended with status {failed}"
        return len(ended) == len(containers), None
    states = [each["State"] for each in containers]
    health = [(state.get("Health") or {}).get("Status") or "none" for state in states]
    if "none" in health:
        return False, "has no healthcheck"
    if "unhealthy" in health:
        return False, "is unhealthy"
    if any(state.get("Status") in ("exited", "dead") for state in states):
        return False, "does not run"
    return all(each == "healthy" for each in health), None
