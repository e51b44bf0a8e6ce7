# SPDX-License-Identifier: MIT
"""Pinning a compose file for publication, and writing it.

It is written as JSON, which is YAML to every reader of it: a text stays a text whatever it looks like, and
a device reads it without a YAML parser.
"""

import hashlib
import json
import re

from composeapps.app.compose import CONFIG_HASH, service_labels
from composeapps.errors import UsageError
from composeapps.oci.reference import parse

# Characters of JSON that YAML does not take as they stand, or takes for the end of a line.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# Of a longer key YAML wants to be told, which JSON has no way to say.
_LONGEST_KEY = 1000


def pin(value, resolve, what):
    """Pin a parsed compose file in place.

    Each service's image becomes ``host/path@sha256:…``, ``build`` and ``develop`` go, and the label
    ``io.compose-spec.config-hash`` is set to the sha256 of the pinned service.

    Arguments:
        value: the mapping, of which nothing is left to be taken in from other files.
        resolve: called with the Reference of an image; returns its digest.
        what: how errors name the file.

    Returns {service: pinned Reference}. Raises UsageError for a service without an image or with an
    image name that cannot be resolved here, and for other things that an app cannot carry along.
    """
    _refuse(value, what)
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
        # Both are for where images are built.
        service.pop("build", None)
        service.pop("develop", None)
        _label(service, name, what)
    return pinned


def _refuse(value, what):
    """Refuse by name what brings an image along that no service has, and what comes from elsewhere."""
    for name, service in value["services"].items():
        volumes = service.get("volumes")
        for volume in volumes if isinstance(volumes, list) else ():
            if isinstance(volume, dict) and volume.get("type") == "image":
                raise UsageError(f"{what}: service '{name}' mounts the image '{volume.get('source')}' (type: image), "
                                 "which an app cannot carry along: copy its files into the app's directory, or make "
                                 "it the image of a service")
            if isinstance(volume, str) and (drive := _drive(volume)):
                raise UsageError(f"{what}: docker compose takes '{drive}:' in the volume '{volume}' of service "
                                 f"'{name}' for a drive of Windows: give the volume a name of two letters or more, or "
                                 "write it as a mapping with type, source and target")
        if "provider" in service:
            raise UsageError(f"{what}: service '{name}' has a provider, a program that no app carries along")
        for key in ("configs", "secrets"):
            for entry in service[key] if isinstance(service.get(key), list) else ():
                if isinstance(entry, dict) and entry.get("type") == "image":
                    raise UsageError(f"{what}: service '{name}' takes one of its {key} from an image, which an app "
                                     "cannot carry along: put the file into the app's directory")
    for kind in ("configs", "secrets"):
        for key, entry in value[kind].items() if isinstance(value.get(kind), dict) else ():
            if isinstance(entry, dict) and "image" in entry:
                raise UsageError(f"{what}: '{key}' of {kind} comes from the image '{entry['image']}', which an app "
                                 "cannot carry along: put the file into the app's directory")
    if value.get("models"):
        raise UsageError(f"{what}: it has models, which an app cannot carry along")


def _drive(volume):
    """Return the part of a volume in short form that docker compose takes for a drive letter, "" for none.

    That is any part of a single letter with a colon behind it (format.ParseVolume of compose-go).
    """
    return next((part for part in volume.split(":")[:-1] if len(part) == 1 and part.isalpha()), "")


def _label(service, name, what):
    """Set the label with the service's hash; what is a list stays one, since only its keys may hold variables."""
    service_labels(service, name, what)
    labels = service.pop("labels", None) or {}
    if isinstance(labels, list):
        labels = [entry for entry in labels if str(entry).partition("=")[0] != CONFIG_HASH]
    else:
        labels = {key: entry for key, entry in labels.items() if key != CONFIG_HASH}
    if labels:
        service["labels"] = labels
    digest = hashlib.sha256(dump(service)).hexdigest()
    if isinstance(labels, list):
        service["labels"] = [*labels, f"{CONFIG_HASH}={digest}"]
    else:
        service["labels"] = {**labels, CONFIG_HASH: digest}


def dump(value):
    """Serialize a mapping as JSON (bytes) that is YAML as well, in its own order, for people to read.

    Raises UsageError for a key that is too long for that, and for a number that is none.
    """
    _check_keys(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    except ValueError:
        raise UsageError("the compose file has an infinite number, which docker compose does not take") from None
    return (_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n").encode()


def _check_keys(value):
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str) and len(json.dumps(key)) > _LONGEST_KEY:
            raise UsageError(f"the key '{key[:40]}…' of the compose file has {len(key)} characters, too many: "
                             "write the mapping that it is in as a list of KEY=VALUE")
        if isinstance(entry, (dict, list)):
            _check_keys(entry)
