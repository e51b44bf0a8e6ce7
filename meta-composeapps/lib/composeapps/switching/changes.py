# SPDX-License-Identifier: MIT
"""What differs between two versions of an app, service by service, without asking dockerd.

A service has changed when its definition did (its pinned config hash, or its text), or what the
definition refers to: its image, a file of the bundle that it mounts or reads its environment from,
a variable of the bundle's ``.env``, a network that it is attached to, a config or a secret. A
service that shares a namespace or volumes with a changed one, or asks to be restarted with it, is
changed with it.
"""

from typing import NamedTuple

from composeapps.app import tree
from composeapps.switching import definition

UNCHANGED, CHANGED, ADDED, REMOVED = "unchanged", "changed", "added", "removed"
# So many of a service's changed files are named.
_FILES = 5


class ServiceChange(NamedTuple):
    """What becomes of one service.

    ``kind`` is unchanged, changed, added or removed; ``reasons`` are short phrases, none for an unchanged
    service. ``strategy`` is one of definition.STRATEGIES and ``handover_timeout`` its time limit in
    seconds, both as the new version says, for a removed service as the old one. ``old_image`` and
    ``new_image`` are pinned references, "" where there is none.
    """

    name: str
    kind: str
    reasons: tuple = ()
    strategy: str = definition.DOWNLOAD_THEN_KILL
    handover_timeout: float = definition.HANDOVER_TIMEOUT
    old_image: str = ""
    new_image: str = ""


class Changes(NamedTuple):
    """What differs between two versions.

    ``services`` are the ServiceChanges in the order of the new compose file, the removed ones last;
    ``networks`` the keys of the networks whose definition changed or that went; ``warnings`` sentences
    about what is not done as the new version may expect, a changed volume for example; ``definition`` is the
    new version's definition.Definition.
    """

    services: tuple = ()
    networks: tuple = ()
    warnings: tuple = ()
    definition: object = None

    def of(self, *kinds):
        """Return the ServiceChanges of these kinds, in order."""
        return [service for service in self.services if service.kind in kinds]

    @property
    def touched(self):
        """The ServiceChanges of the services whose containers are replaced, made or removed."""
        return self.of(CHANGED, ADDED, REMOVED)

    def dump(self):
        """Return what JSON prints."""
        return {"services": [service._asdict() for service in self.services], "networks": list(self.networks),
                "warnings": list(self.warnings)}


def between(old, new, store):
    """Compare two versions of an app.

    Arguments:
        old: the App that is installed, or None.
        new: the App that is to take its place.
        store: the Store, for the bundle of one whose contents are not known.

    Returns the Changes. Raises CorruptError or NotFoundError for a bundle that is broken or not there.
    """
    return compare(definition.of(tree.whole(old, store)) if old else None, definition.of(tree.whole(new, store)))


def compare(before, after):
    """Compare two definition.Definitions, the first of which may be None; return the Changes."""
    services = []
    networks = _networks(before, after) if before else ()
    reasons = _reasons(before, after, networks)
    for name, service in after.services.items():
        old = before.services.get(name) if before else None
        kind = _kind(old, service, reasons[name])
        services.append(ServiceChange(
            name, kind, tuple(reasons[name]) if kind == CHANGED else (), service.strategy, service.handover_timeout,
            old.image if old else "", service.image))
    for name, old in (before.services.items() if before else ()):
        if name not in after.services:
            services.append(ServiceChange(name, REMOVED, (), old.strategy, old.handover_timeout, old.image, ""))
    warnings = list(after.warnings)
    if before:
        warnings += _of_volumes(before, after)
        if before.project != after.project:
            warnings.append("the compose file calls its project otherwise than before: it keeps the name that it has, "
                            "and with it its volumes")
    return Changes(tuple(services), tuple(networks), tuple(warnings), after)


def _of_volumes(before, after):
    for key in sorted(before.volumes.keys() & after.volumes.keys()):
        if before.volume_names.get(key) != after.volume_names.get(key):
            yield f"volume '{key}' is another one than before: what is in the one before stays in that"
        elif before.volumes[key] != after.volumes[key]:
            yield f"volume '{key}' is defined otherwise than before: it is kept as it is, with its data"


def _kind(old, new, reasons):
    """Return what becomes of a service of the new version; one whose profiles are turned on comes, and off goes."""
    if old is None or new.active and not old.active:
        return ADDED
    if old.active and not new.active:
        return REMOVED
    return CHANGED if reasons else UNCHANGED


def _networks(before, after):
    """Return the keys of the networks that were in use and are defined otherwise now, or not at all."""
    used = {key for service in before.services.values() for key in service.networks}
    return tuple(sorted(key for key in used if before.networks.get(key) != after.networks.get(key)))


def _reasons(before, after, networks):
    reasons = {}
    for name, service in after.services.items():
        old = before.services.get(name) if before else None
        reasons[name] = _own_reasons(before, after, old, service, networks) if old else []
    if not before:
        return reasons
    # What hangs on a changed or a new service changes with it, and so on.
    bound = {}
    for name, service in after.services.items():
        for needed, how in service.bound_to.items():
            bound.setdefault(needed, []).append((name, how))
    waiting = [name for name in after.services if reasons[name] or name not in before.services]
    while waiting:
        needed = waiting.pop()
        for name, how in bound.get(needed, ()):
            if name in before.services and not reasons[name]:
                reasons[name] = [f"{how} service {needed}"]
                waiting.append(name)
    return reasons


def _own_reasons(before, after, old, new, networks):
    reasons = []
    if old.image != new.image:
        reasons.append("image")
    # The image is part of the pinned hash, so that one alone tells nothing when the image differs.
    if old.text != new.text or old.config_hash != new.config_hash and old.image == new.image:
        reasons.append("definition")
    theirs, ours = before.files(old), after.files(new)
    files = sorted(path for path in theirs.keys() | ours.keys() if theirs.get(path) != ours.get(path))
    reasons += [f"file {path} of the bundle" for path in files[:_FILES]]
    if len(files) > _FILES:
        reasons.append(f"{len(files) - _FILES} more files of the bundle")
    reasons += [f"variable {name} of .env" for name in sorted(new.variables)
                if before.environment.get(name) != after.environment.get(name)]
    reasons += [f"volume {key}" for key in sorted(new.volumes)
                if before.volume_names.get(key) != after.volume_names.get(key)]
    reasons += [f"network {key}" for key in sorted(new.networks & set(networks))]
    reasons += [f"{kind.removesuffix('s')} {key}" for kind, key in sorted(new.resources)
                if before.resources.get((kind, key)) != after.resources.get((kind, key))]
    return reasons
