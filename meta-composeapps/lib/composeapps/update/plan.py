# SPDX-License-Identifier: MIT
"""What an update would do, found out without doing any of it."""


from typing import NamedTuple

from composeapps.app.tree import WHOLE
from composeapps.errors import CorruptError, EngineError, NotFoundError, UpdateLockedError, UsageError
from composeapps.installed import install
from composeapps.oci.reference import parse_pinned
from composeapps.records import rejection
from composeapps.sizes import human_size
from composeapps.switching import changes as differences
from composeapps.switching import definition, switch

# Strategies that stop a service before the new version is fetched.
STOPS_BEFORE = (definition.KILL_THEN_DOWNLOAD, definition.DELETE_THEN_DOWNLOAD)

RESTARTED, STARTED, REMOVED, KEPT = "restarted", "started", "removed", "unchanged"
_ACTIONS = {
    differences.CHANGED: RESTARTED, differences.ADDED: STARTED, differences.REMOVED: REMOVED,
    differences.UNCHANGED: KEPT,
}


class Plan(NamedTuple):
    """What an update would do.

    ``app`` is the app's name, ``source`` the installed version ("" for none), ``target`` the wanted one.
    ``fetch`` lists (digest, bytes) of what would be fetched; ``load`` (image, bytes in the store, layers) of
    the images that dockerd lacks, None when dockerd did not answer. ``services`` are the ServiceChanges;
    ``volumes`` the space.VolumeNeeds; ``warnings`` and ``obstacles`` sentences, the latter about what would
    keep the update from being done now. ``stopped`` tells that the user stopped the app, so that nothing is
    started, and ``soak`` the seconds of the health gate.
    """

    app: str
    source: str
    target: str
    fetch: tuple
    load: tuple | None
    services: tuple
    volumes: tuple
    warnings: tuple
    obstacles: tuple
    stopped: bool
    soak: int

    @property
    def fetch_bytes(self):
        """The bytes that would be fetched."""
        return sum(size for _digest, size in self.fetch)

    @property
    def load_bytes(self):
        """The bytes of the images that would be loaded, as the store has them."""
        return sum(size for _image, size, _layers in self.load or ())

    def dump(self):
        """Return what JSON prints."""
        return {
            "app": self.app, "source": self.source, "target": self.target,
            "fetch": {"bytes": self.fetch_bytes,
                      "blobs": [{"digest": digest, "size": size} for digest, size in self.fetch]},
            "load": None if self.load is None else {
                "bytes": self.load_bytes,
                "images": [{"image": image, "size": size, "layers": layers} for image, size, layers in self.load]},
            "services": [
                {"name": service.name, "action": _ACTIONS[service.kind], "reasons": list(service.reasons),
                 "strategy": service.strategy, "handover_timeout": service.handover_timeout}
                for service in self.services],
            "volumes": [need.dump() for need in self.volumes],
            "warnings": list(self.warnings), "obstacles": list(self.obstacles),
            "stopped": self.stopped, "soak": self.soak,
        }

    def lines(self):
        """Return what people read, line by line; it says what ``dump`` does."""
        source = self.source or "(not installed)"
        if self.source == self.target:
            return [f"{self.app}: {self.target} is installed already, nothing would be done"]
        lines = [f"{self.app}: from {source}", f"{' ' * len(self.app)}    to {self.target}"]
        lines.append(f"  fetch     {human_size(self.fetch_bytes)} ({self.fetch_bytes} bytes) in {len(self.fetch)} blobs"
                     if self.fetch else "  fetch     nothing: the store has all of it")
        if self.load is None:
            lines.append("  load      unknown: dockerd does not answer")
        elif not self.load:
            lines.append("  load      nothing: dockerd has the images")
        for image, size, layers in self.load or ():
            lines.append(f"  load      {image}: {human_size(size)} ({size} bytes) in {layers} layers")
        for action in (RESTARTED, STARTED, REMOVED, KEPT):
            for service in self.services:
                if _ACTIONS[service.kind] == action:
                    lines.append(f"  {action:<10}{_service_line(service, self.stopped)}")
        if self.stopped:
            lines.append("  the app was stopped by 'composeapps stop' and stays stopped")
        else:
            lines.append(f"  commit    when all services were well for {self.soak} s")
        for need in self.volumes:
            lines.append(f"  space     {need.path}: {human_size(need.needed)} of the {human_size(need.allowed)} that "
                         "may be taken" + ("" if need.enough else ": NOT ENOUGH"))
        lines += [f"  warning   {warning}" for warning in self.warnings]
        lines += [f"  obstacle  {obstacle}" for obstacle in self.obstacles]
        return lines


def _service_line(service, stopped):
    if service.kind in (differences.UNCHANGED, differences.REMOVED):
        return service.name
    reasons = f": {', '.join(service.reasons)}" if service.reasons else ""
    if stopped:
        return f"{service.name}{reasons}"
    strategy = service.strategy
    if strategy == definition.HAND_OVER:
        strategy += f", within {service.handover_timeout:g} s"
    return f"{service.name}{reasons} ({strategy})" if service.kind == differences.CHANGED else service.name


def make(parts, ref, soak=None):
    """Find out what an update to ``ref`` would do; nothing is written, and no lock is needed.

    Arguments:
        parts: the Parts of the device.
        ref: the version's pinned Reference.
        soak: seconds of the health gate, None for the configuration's.

    Returns a Plan. Raises RegistryError, NotFoundError, CorruptError.
    """
    from composeapps.pull import pull
    from composeapps.space import check as space

    name, state = ref.app_name, parts.states.get(ref.app_name)
    source = state.uri if state else ""
    stopped = bool(state and state.stopped)
    soak = parts.config.soak_time if soak is None else soak
    if source == str(ref):
        return Plan(name, source, source, (), (), (), (), (), (), stopped, soak)
    survey = pull.survey(ref, parts.store, parts.client, reading=WHOLE)
    new, old, warnings, obstacles = survey.app, None, [], []
    if source:
        try:
            old = install.load_from_store(parts.store, parse_pinned(source))
        except (CorruptError, NotFoundError) as err:
            warnings.append(f"the installed version cannot be read, so what differs is not known: {err}")
    changes = differences.between(old, new, parts.store)
    entry = rejection.rejected(parts.states, str(ref), parts.config.max_failures)
    if entry:
        obstacles.append(f"it is rejected after {entry.count} failures: {entry.reason}")
    engine, load = parts.look, None
    try:
        load = tuple(_to_load(new, engine))
        if not stopped:
            switch.check_locks(old, new, changes, parts.states, engine, parts.config)
    except (UpdateLockedError, UsageError) as err:
        obstacles.append(str(err))
    except EngineError as err:
        engine = None
        obstacles.append(str(err))
    volumes = tuple(space.needs(new, survey.missing, parts.store, engine, parts.config, survey.documents))
    fetch = tuple((blob.descriptor.digest, blob.descriptor.size) for blob in survey.missing)
    return Plan(name, source, str(ref), fetch, load, changes.services, volumes,
                (*warnings, *changes.warnings), tuple(obstacles), stopped, soak)


def _to_load(app, engine):
    for image in app.images.values():
        if install.find_image(image, engine) is None:
            layers = image.variants[0].document.layers
            yield f"{image.ref}", sum(layer.size for layer in layers), len(layers)
