# SPDX-License-Identifier: MIT
"""Which of an app's services a start brings up, with how many containers, and which of these may rest.

What the health gate waits for, what ``status`` and ``ps`` hold to be well and what a switch starts is
decided here, from the compose file and the ``.env`` beside it, as docker compose decides it.
"""

import os

from composeapps import beneath, programs
from composeapps.app import compose, interpolation
from composeapps.engine.labels import label
from composeapps.patterns import Pattern

ENVIRONMENT_FILE = ".env"
# More than any environment file has, in bytes.
LARGEST = 256 * 1024
_DURATION = Pattern(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(h|ms|m|us|s|ns)")
_UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_LONGEST = 86400.0
# How dockerd writes the start of a container that was never started.
_NEVER = "0001-"
# What lets a container rest that ended well.
_RESTING = ("no", "on-failure")


def environment(content):
    """Return {variable: value} that docker compose has for an app whose ``.env`` is ``content``.

    One that compose cannot read sets nothing: compose starts nothing then, and says why.
    """
    try:
        found = interpolation.parse_environment(content, programs.ENVIRONMENT)
    except ValueError:
        found = {}
    return {**found, **programs.ENVIRONMENT}


def environment_in(directory):
    """Return what ``environment`` does of the ``.env`` in a directory, which need not have one."""
    try:
        descriptor = os.open(directory, beneath.DIRECTORY)
        try:
            data = beneath.read_at(descriptor, ENVIRONMENT_FILE, LARGEST)
        finally:
            os.close(descriptor)
    except OSError:
        data = b""
    return environment(data.decode(errors="replace"))


def is_active(profiles, variables):
    """Tell whether a service of some profiles is started: it has none, or one of them is turned on.

    Arguments:
        profiles: the service's, as the compose file has them.
        variables: what ``environment`` returned.
    """
    wanted = {name.strip() for name in variables.get("COMPOSE_PROFILES", "").split(",")} - {""}
    return not profiles or "*" in wanted or any(
        interpolation.replaced(profile, variables) in wanted for profile in profiles)


def replicas(value, variables):
    """Return how many containers a service has, given what the compose file says of it: a number, a text, or None.

    What is no number counts for one: compose starts nothing then, and says why.
    """
    if isinstance(value, str):
        value = interpolation.replaced(value, variables).strip()
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 9 else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 1


def count(service, variables):
    """Return with how many containers a compose.Service is started: none when its profiles are not turned on."""
    return replicas(service.replicas, variables) if is_active(service.profiles, variables) else 0


def counted(service, containers, variables):
    """Tell which containers of a compose.Service have to be well, and with how many a start brings it up.

    Arguments:
        service: the compose.Service.
        containers: all that it has, as dockerd described them.
        variables: what ``environment`` returned.

    Returns (the containers, the number). Of a service that no start brings up those count that run, or are of this
    version: somebody started them.
    """
    wanted = count(service, variables)
    if not wanted:
        containers = [each for each in containers
                      if each["State"].get("Running") or label(each, compose.CONFIG_HASH) == service.config_hash]
    return containers, wanted


def seconds(value, variables):
    """Return a duration of a compose file ("1m30s") in seconds, 0 for none and for what is none."""
    total, rest = 0.0, interpolation.replaced(value or "", variables).strip()[:100]
    while rest:
        match = _DURATION.match(rest)
        if match is None:
            return 0.0
        total += float(match[1]) * _UNITS[match[2]]
        rest = rest[match.end():]
    return min(total, _LONGEST)


def is_finished(container):
    """Tell whether a container did its work: it ended with status 0, and its restart policy lets it rest."""
    state = container["State"]
    return state.get("Status") == "exited" and state.get("ExitCode") == 0 and may_rest(container) \
        and was_started(container)


def was_started(container):
    """Tell whether a container ever was started."""
    return not str(container["State"].get("StartedAt") or "").startswith(_NEVER)


def may_rest(container):
    """Tell whether the restart policy of a container leaves one that ended as it is."""
    return policy(container) in _RESTING


def policy(container):
    """Return the restart policy of a container that dockerd described."""
    return ((container.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no"
