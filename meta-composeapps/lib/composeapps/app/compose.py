# SPDX-License-Identifier: MIT
"""Compose files: what their services are.

Values are not interpolated: ``${…}`` is left for the device.
"""

import functools
from typing import NamedTuple

from composeapps.app import yamltext
from composeapps.errors import CorruptError, UsageError
from composeapps.oci.reference import parse_pinned
from composeapps.patterns import Pattern

CONFIG_HASH = "io.compose-spec.config-hash"
_SERVICE_NAME = Pattern(r"[a-zA-Z0-9._-]+")


class Service(NamedTuple):
    """A service as a pinned compose file describes it: its name, pinned image and config hash.

    ``profiles`` and ``replicas`` are as the file has them, the latter None without any: what they come to
    depends on variables (composeapps.installed.expected).
    """

    name: str
    image: str
    config_hash: str = ""
    profiles: tuple = ()
    replicas: object = None


def load(data, what):
    """Parse a compose file (bytes); return its mapping.

    Raises UsageError naming ``what``, and the line where there is one, when it is not a compose file: not
    YAML, no services, a service that is no mapping.
    """
    found = yamltext.read(data, what)
    if len(found) > 1:
        raise UsageError(f"{what} is not a compose file: it has {len(found)} YAML documents, where one is expected")
    return check(found[0] if found else None, what)


def check(value, what):
    """Return a compose file's mapping when it has services, each a mapping; raises UsageError otherwise."""
    if not isinstance(value, dict) or not isinstance(value.get("services"), dict) or not value["services"]:
        raise UsageError(f"{what} is not a compose file: it has no services")
    for name, service in value["services"].items():
        if not _SERVICE_NAME.fullmatch(name):
            raise UsageError(f"{what}: '{name}' is not a service name")
        if not isinstance(service, dict):
            raise UsageError(f"{what}: service '{name}' is not a mapping")
    return value


# One app's file is asked for many times, and then the next one's.
@functools.lru_cache(maxsize=2)
def pinned(data, what):
    """Return the mapping of a compose file (bytes) that somebody published; raises CorruptError.

    It is kept for who asks next, so nobody may change it.
    """
    try:
        return load(data, f"the compose file of {what}")
    except UsageError as err:
        raise CorruptError(str(err)) from None


@functools.lru_cache(maxsize=2)
def services(data, what):
    """Return the Services of a pinned compose file (bytes), in its order, a tuple.

    Raises CorruptError when a service's image is not pinned, or the file is none.
    """
    value = pinned(data, what)
    try:
        return tuple(
            Service(name, str(parse_pinned(str(service.get("image") or ""), what=f"{what}: image of service '{name}'",
                                           version=False)),
                    str(service_labels(service, name, what).get(CONFIG_HASH) or ""), *_started(service))
            for name, service in value["services"].items())
    except UsageError as err:
        raise CorruptError(str(err)) from None


def _started(service):
    """Return what a service says of its profiles, and of how many containers it has."""
    profiles, deploy, scale = service.get("profiles"), service.get("deploy"), service.get("scale")
    replicas = deploy.get("replicas") if isinstance(deploy, dict) else None
    return tuple(profiles) if isinstance(profiles, list) else (), replicas if scale is None else scale


def service_images(data, what):
    """Return the pinned References of the images of a pinned compose file, sorted, each once."""
    return [parse_pinned(image) for image in sorted({service.image for service in services(data, what)})]


def service_labels(service, name, what):
    """Return a service's labels as a mapping; compose allows a list of KEY=VALUE as well."""
    labels = service.get("labels") or {}
    if isinstance(labels, list):
        labels = dict(str(item).partition("=")[::2] for item in labels)
    if not isinstance(labels, dict):
        raise UsageError(f"{what}: the labels of service '{name}' are neither a mapping nor a list")
    return dict(labels)
