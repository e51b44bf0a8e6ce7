# SPDX-License-Identifier: MIT
"""Compose files: reading their services, and pinning them for publication.

Takes PyYAML, so nothing that BitBake imports may import this at its top. Values are not
interpolated: ``${…}`` is left for the device, except in an image's name, where it is refused.
"""

import functools
import hashlib
import re
from typing import NamedTuple

from composeapps.errors import CorruptError, UsageError
from composeapps.oci.reference import parse, parse_pinned

CONFIG_HASH = "io.compose-spec.config-hash"
_SERVICE_NAME = re.compile(r"[a-zA-Z0-9._-]+")


class Service(NamedTuple):
    """A service as a pinned compose file describes it: its name, pinned image and config hash.

    ``expected`` tells whether it runs after a start: it has no profile, and at least one replica.
    """

    name: str
    image: str
    config_hash: str = ""
    expected: bool = True


def load(data, what):
    """Parse a compose file (bytes); return its mapping.

    Raises UsageError naming ``what``, and the line where YAML gives one, when it is not a compose
    file: not YAML, no services, a service that is no mapping.
    """
    import yaml

    try:
        value = yaml.load(data, Loader=loader())  # noqa: S506 - made from a safe one
    except yaml.MarkedYAMLError as err:
        line = f", line {err.problem_mark.line + 1}" if err.problem_mark else ""
        raise UsageError(f"{what}{line}: not YAML: {err.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as err:
        raise UsageError(f"{what}: not YAML: {str(err).splitlines()[0]}") from None
    if not isinstance(value, dict) or not isinstance(value.get("services"), dict) or not value["services"]:
        raise UsageError(f"{what} is not a compose file: it has no services")
    for name, service in value["services"].items():
        if not isinstance(name, str) or not _SERVICE_NAME.fullmatch(name):
            raise UsageError(f"{what}: '{name}' is not a service name")
        if not isinstance(service, dict):
            raise UsageError(f"{what}: service '{name}' is not a mapping")
    return value


@functools.cache
def loader():
    """Return a YAML loader that takes scalars for what docker compose takes them for.

    YAML 1.1, which PyYAML reads, has numbers of base 60, such as the ports 22:22, and booleans
    such as the restart policy no; YAML 1.2 and docker compose have neither.
    """
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        """Safe, as the one it is made from."""

    resolvers = {}
    for first, entries in Loader.yaml_implicit_resolvers.items():
        resolvers[first] = [(tag, regexp) for tag, regexp in entries if tag not in _OTHER_SCALARS]
    Loader.yaml_implicit_resolvers = resolvers
    for tag, (pattern, firsts) in _OTHER_SCALARS.items():
        Loader.add_implicit_resolver(tag, re.compile(pattern), list(firsts))
    return Loader


# Tag -> how such a scalar looks, and the characters that it can begin with.
_OTHER_SCALARS = {
    "tag:yaml.org,2002:bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "tag:yaml.org,2002:int": (r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)$", "-+0123456789"),
    "tag:yaml.org,2002:float": (r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
                                r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$", "-+0123456789."),
}


def services(data, what):
    """Return the Services of a pinned compose file (bytes), in its order.

    Raises CorruptError when a service's image is not pinned, or the file is none.
    """
    try:
        value = load(data, f"the compose file of {what}")
        return [
            Service(name, str(parse_pinned(str(service.get("image") or ""), what=f"{what}: image of service '{name}'")),
                    str(service_labels(service, name, what).get(CONFIG_HASH) or ""), _expected(service))
            for name, service in value["services"].items()
        ]
    except UsageError as err:
        raise CorruptError(str(err)) from None


def _expected(service):
    deploy = service.get("deploy")
    replicas = (deploy if isinstance(deploy, dict) else {}).get("replicas", service.get("scale", 1))
    return not service.get("profiles") and replicas != 0


def service_images(data, what):
    """Return the pinned References of the images of a pinned compose file, sorted, each once."""
    return [parse_pinned(image) for image in sorted({service.image for service in services(data, what)})]


def pin(value, resolve, what):
    """Pin a parsed compose file in place.

    Each service's image becomes ``host/path@sha256:…``, ``build`` goes, and the label
    ``io.compose-spec.config-hash`` is set to the sha256 of the pinned service.

    Arguments:
        value: what ``load`` returned.
        resolve: called with the Reference of an image; returns its digest.
        what: how errors name the file.

    Returns {service: pinned Reference}. Raises UsageError for a service without an image or with an
    image name that cannot be resolved here.
    """
    pinned = {}
    for name, service in value["services"].items():
        image = service.get("image")
        if not isinstance(image, str) or not image.strip():
            raise UsageError(f"{what}: service '{name}' has no image: name one as HOST/PATH:TAG")
        if "$" in image:
            raise UsageError(f"{what}: service '{name}': '{image}' holds a variable, which cannot be pinned")
        ref = parse(image.strip(), what=f"{what}: image of service '{name}'")
        pinned[name] = ref.pinned(resolve(ref))
        service["image"] = str(pinned[name])
        service.pop("build", None)
        labels = service_labels(service, name, what)
        labels.pop(CONFIG_HASH, None)
        service.pop("labels", None)
        if labels:
            service["labels"] = labels
        digest = hashlib.sha256(dump(service)).hexdigest()
        service["labels"] = {**labels, CONFIG_HASH: digest}
    return pinned


def dump(value):
    """Serialize a mapping as YAML bytes, in its own order, the same bytes for the same content."""
    import yaml

    return yaml.dump(value, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=4096).encode()


def _dumper():
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes no anchors: readers of the field expand them, but people read these files too."""

        def ignore_aliases(self, data):
            return True

    return Dumper


def service_labels(service, name, what):
    """Return a service's labels as a mapping; compose allows a list of KEY=VALUE as well."""
    labels = service.get("labels") or {}
    if isinstance(labels, list):
        labels = dict(str(item).partition("=")[::2] for item in labels)
    if not isinstance(labels, dict):
        raise UsageError(f"{what}: the labels of service '{name}' are neither a mapping nor a list")
    return dict(labels)
