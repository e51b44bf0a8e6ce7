# SPDX-License-Identifier: MIT
"""Bringing an app's containers from one version to another, touching only those that differ.

What is to be done follows from what is there: a container is of the wanted version when its
fingerprint says so. So each of these steps can be repeated, and cut off in the middle:

1. What an interrupted docker compose left is tidied up: a new container under a temporary name.
2. The bundle is placed. A cut leaves files of both (see ``installed.placing``).
3. The containers of removed services go, and those on a network that is defined otherwise now, with the
   network. A cut leaves some of them, or the network missing.
4. In the order of ``depends_on``, services are replaced by docker compose, handed over, or started. A cut
   leaves a service with its old container, with both, with the new one stopped, or with none.

Volumes are never touched: compose keeps a named volume that is there, however it is defined now, and
a replaced container takes its anonymous ones over.
"""

import contextlib
import functools
import itertools
import re
import time

from composeapps.app import compose
from composeapps.engine import client, look
from composeapps.engine.labels import FINGERPRINT, NETWORK, NETWORK_DEFINITION, PROJECT, WORKING_DIR, label, number
from composeapps.errors import EngineError, UsageError
from composeapps.installed import expected, install
from composeapps.installed.project import Project
from composeapps.patterns import Pattern
from composeapps.switching import changes as differences
from composeapps.switching import definition

# How a service gets to where it should be: start what is there or missing, have compose replace what is old, hand
# over, or remove the old beside the new.
START, UP, HAND_OVER, DROP = "start", "up", "hand-over", "drop"
_UP = ("up", "--detach", "--no-deps", "--no-build", "--quiet-pull")
# How the name of a container begins that gave its own to another one.
_ASIDE = "composeapps-"
# A recreated container's name until the old one is gone.
_TEMPORARY = Pattern(r"/?([0-9a-f]{12})_(.+)")
# Seconds that dockerd may take to finish a removal that it has begun.
_REMOVAL = 30
# After a compose that was cut off: how often all is gone through until nothing is left to be done, and the
# seconds in between, for what dockerd is still at.
_ATTEMPTS, _PAUSE = 4, 1


def before_download(old, new, changes, states, engine, config, force=False, notify=lambda text: None):
    """Do what the strategies kill-then-download and delete-then-download want done before the fetch.

    Arguments:
        old: the App that is installed, or None: then nothing is done.
        new: the App that is to take its place.
        changes: the Changes between the two.
        states: the StateDirectory; its lock is held by the caller.
        engine: the Engine.
        config: the Config.
        force: override update locks.
        notify: called with a line of text at each step that takes time.

    Returns whether anything was stopped: then the old version no longer runs in whole, and starting it again
    brings it back from the store. Raises UpdateLockedError before anything was touched, EngineError.
    """
    from composeapps.switching import locks

    wanted = {change.name: change for change in changes.of(differences.CHANGED)
              if change.strategy in (definition.KILL_THEN_DOWNLOAD, definition.DELETE_THEN_DOWNLOAD)
              and change.old_image != change.new_image}
    if old is None or not wanted:
        return False
    project = Project(old, {}, states, config, engine)
    affected = {name: found for name, found in project.now(wanted).items() if name in wanted}
    running = [each for found in affected.values() for each in found if each["State"].get("Running")]
    locks.check(engine, running, force, notify)
    for container in running:
        notify(f"{project.app_name}: stopping {_name(container)} before the download")
        engine.stop(container["Id"])
    for name, found in affected.items():
        if wanted[name].strategy == definition.DELETE_THEN_DOWNLOAD:
            for container in found:
                _remove(engine, container)
            _remove_image(engine, old.images[wanted[name].old_image], notify)
    return bool(running)


def check_locks(old, new, changes, states, engine, config, force=False, notify=lambda text: None):
    """Raise UpdateLockedError when a container that ``apply`` would stop holds its update lock; touch nothing.

    Arguments are those of ``before_download``. Returns the IDs of the containers that hold none. Raises UsageError when
    something else on the device has a name that the new version wants.
    """
    from composeapps.switching import locks

    touched = {change.name for change in changes.of(differences.CHANGED, differences.REMOVED)}
    project = Project(new, {}, states, config, engine, changes.definition)
    project.check_name()
    if project.definition:
        _check_names(project)
    containers = project.containers()
    affected = [each for name in sorted(touched) for each in containers.get(name, [])]
    locks.check(engine, affected, force, notify)
    return frozenset(each["Id"] for each in affected)


def apply(old, new, images, changes, states, engine, config, store, force=False, notify=lambda text: None,
          hand_over=True, checked=()):
    """Bring the app's containers to the version ``new``; running it again from any state ends in the same.

    Arguments:
        old: the App whose containers may still be there, or None.
        new: the App to run; its images are loaded.
        images: what install.load_images returned for ``new``.
        changes: the Changes between the two.
        states: the StateDirectory; its lock is held by the caller. Of an app that the user stopped only the
            bundle is placed, and the next start does the rest.
        engine: the Engine, or a Look that is of this moment.
        config: the Config.
        store: the Store, for the bundle.
        force: override update locks.
        notify: called with a line of text at each step that takes time.
        hand_over: False replaces also those services at once that hand over: the way back waits for nobody.
        checked: what ``check_locks`` returned just now.

    Raises UpdateLockedError before anything was touched, or when a hand-over waited too long for a lock;
    EngineError, NotRunningError (a hand-over failed: the old container still runs), CorruptError,
    NotFoundError, StorageError.
    """
    project = Project(new, install.service_images(new, images), states, config, engine,
                      definition.from_store(new, store, config))
    state = states.get(project.app_name)
    stopped = state is not None and state.stopped
    project.claim()
    with _telling(project):
        work = _Work(project, changes, force, hand_over, notify)
        if not stopped:
            work.tidy()
            _check_names(project)
            work.check_locks(checked)
        if install.place_bundle(new, store, config, project.engine, old, notify):
            notify(f"{project.app_name}: bundle unpacked")
        if not stopped:
            work.run()


def start(project, rested=None, notify=lambda text: None):
    """Start an installed app's services: those that do not run, are missing, or are of another version.

    Arguments:
        project: the Project, with its definition.
        rested: of an app that was stopped the IDs of the containers that had done their work; else None.
        notify: called with a line of text at each step that takes time.

    Locks are not looked at, and nothing is handed over. Raises EngineError, NotRunningError.
    """
    project.engine = look.at(project.engine)
    project.claim()
    with _telling(project):
        work = _Work(project, None, True, False, notify, rested)
        found = work.to_start()
        if found is not None and work.start(*found):
            return
        work.tidy()
        _check_names(project)
        work.run()


def begin(project, rested=None, notify=lambda text: None):
    """Find out whether an installed app's services are as they should be; return what starts them, None for nothing.

    Arguments are those of ``start``, which is what is returned, to be called without any. Raises EngineError.
    """
    project.engine = seen = look.at(project.engine)
    project.claim()
    found = _Work(project, None, True, False, notify, rested).to_start()
    project.engine = seen
    return None if found is not None and not found[0] else functools.partial(start, project, rested, notify)


@contextlib.contextmanager
def _telling(project):
    """Tell a Look of what is done within it beside the Look."""
    seen = project.engine
    try:
        yield
    finally:
        if project.engine is not seen:
            seen.changed(project.directory, project.name)


class _Work:
    """What is to be done to bring a project's containers to its definition.

    Arguments:
        project: the Project.
        changes: the Changes that led to it; None when only the containers tell.
        force, hand_over, notify: as ``apply`` has them.
        rested: as ``start`` has it.
    """

    def __init__(self, project, changes, force, hand_over, notify, rested=None):
        self._cut_off = project.was_cut_off()
        if self._cut_off:
            # dockerd may still be at something of which its lists do not tell yet.
            project.engine = look.behind(project.engine)
        self._project, self._engine, self._definition = project, project.engine, project.definition
        self._changes, self._force, self._hand_over, self._notify = changes, force, hand_over, notify
        self._changed = {change.name for change in changes.of(differences.CHANGED)} if changes else set()
        self._hashes = {service.name: service.config_hash for service in self._definition.services.values()}
        self._ids = {}
        self._rested, self._awaited = rested, self._definition.awaited()

    def to_start(self):
        """Return (the services, in order, of which containers are to be started, the project's containers).

        None when something else is to be done as well. Nothing is touched.
        """
        if self._cut_off:
            return None
        containers = self._project.containers(certain=self._rested is not None)
        # The fingerprint of a container covers the networks that it is attached to.
        if any(map(_is_untidy, itertools.chain(*containers.values()))) or any(self._leavers(containers)) \
                or any(self._borrowed(containers)) or any(self._misnamed(containers)):
            return None
        modes = self._modes(containers)
        return ([name for name, _mode in modes], containers) if all(mode == START for _name, mode in modes) else None

    def tidy(self):
        """Remove or rename the containers that an interrupted compose left under a temporary name.

        Those that somebody paused go on: compose takes them for running ones, and they hear no signal.
        """
        for found in self._project.containers().values():
            for container in filter(_is_untidy, found):
                match = _TEMPORARY.fullmatch(container["Name"])
                if container["State"].get("Status") == "paused":
                    self._engine.unpause(container["Id"])
                    if match is None:
                        continue
                if match is None or any(each["Id"].startswith(match[1]) for each in found):
                    _remove(self._engine, container)
                else:
                    try:
                        self._engine.rename(container["Id"], match[2])
                    except EngineError:
                        _remove(self._engine, container)

    def check_locks(self, checked):
        """Raise UpdateLockedError when a container that is to be replaced or removed holds its lock.

        Those with the IDs ``checked`` do not.
        """
        from composeapps.switching import locks

        containers = self._project.containers()
        affected = [each for _network, users in self._networks(containers) for each in users]
        old = [each for name, found in containers.items() for each in found if not self._is_current(name, each)]
        touched = {each["Id"]: each for each in (*old, *affected) if each["Id"] not in checked}
        locks.check(self._engine, list(touched.values()), self._force, self._notify)

    def run(self):
        """Do it."""
        attempts = _ATTEMPTS if self._cut_off else 1
        while attempts:
            attempts -= 1
            try:
                self._run()
            except EngineError:
                # What dockerd is still at for a compose that is gone gets in the way of the next one.
                if not attempts:
                    raise
            if attempts:
                self._rested = None
                time.sleep(_PAUSE)
                self.tidy()
                if not self._left():
                    return

    def _left(self):
        """Return [(service, how it gets to where it should be), …] in order, without those that are there."""
        return self._modes(self._project.containers())

    def _modes(self, containers):
        present = {each["Id"] for found in containers.values() for each in found}
        return [(name, mode) for name in self._definition.ordered()
                if (mode := self._mode(name, containers, present)) is not None]

    def _leavers(self, containers):
        """Yield the containers of services that there are no more."""
        gone = {change.name for change in self._changes.of(differences.REMOVED)} if self._changes else set()
        for name, found in containers.items():
            if name in gone or name not in self._definition.services:
                yield from found

    def _run(self):
        from composeapps.switching import handover, waiting

        # docker compose makes none of these.
        unused = self._networks_without_services()
        for container in self._leavers(self._project.containers()):
            self._end(container)
        self._replace_networks()
        self._rename()
        for name, mode in self._left():
            if mode == DROP:
                for container in self._old(name):
                    self._end(container)
        modes = self._with_bound(self._left(), self._project.containers())
        for mode, group in itertools.groupby(modes, key=lambda each: each[1]):
            names = [name for name, _mode in group]
            if mode == HAND_OVER:
                for name in names:
                    self._wait([name])
                    handover.run(self._project, self._definition.services[name], self._old(name),
                                 lambda each, name=name: self._is_current(name, each), self._end, self._force,
                                 self._notify)
            else:
                self._notify(f"{self._project.app_name}: {'starting' if mode == START else 'bringing up'} "
                             f"{', '.join(names)}")
                if mode == START and self.start(names, self._project.containers()):
                    continue
                self._wait(names)
                try:
                    self._project.compose(*_UP, *(("--no-recreate",) if mode == START else ()), *names)
                except EngineError:
                    waiting.check_failed(self._project, names)
                    raise
        self._remove_networks(unused)

    def start(self, names, containers):
        """Start containers of some services without docker compose, each after those that it depends on.

        Arguments:
            names: the services, in order.
            containers: the project's; those that do not run as inspecting them told.

        Returns False when compose has to do it, or the rest of it: it makes containers, and has its own to do at some
        starts. Raises NotRunningError, EngineError, and what Project.check_mounts does.
        """
        wanted = {name: [each for each in containers.get(name, ()) if self._needs_start(name, each)] for name in names}
        for name in names:
            service, current = self._definition.services[name], containers.get(name, [])
            # One that never was started may lack what compose does before.
            if service.prepares or len(current) != (service.replicas if service.active else len(current)) or any(
                    each["State"].get("Status") != "exited" or not expected.was_started(each)
                    for each in wanted[name]):
                return False
        if names:
            self._project.check_mounts()
        try:
            for batch in self._batches(names):
                self._wait(batch)
                client.each(self._engine.start, [each["Id"] for name in batch for each in wanted[name]])
        except EngineError as err:
            self._notify(f"{self._project.app_name}: {err}")
            return False
        return True

    def _batches(self, names):
        """Yield services that can be started at a time, in order."""
        levels = self._definition.levels()
        for _level, batch in itertools.groupby(sorted(names, key=levels.get), key=levels.get):
            yield list(batch)

    def _old(self, name):
        return [each for each in self._project.containers().get(name, []) if not self._is_current(name, each)]

    def _mode(self, name, containers, present):
        """Return how a service gets to where it should be, None when it is there; ``present`` are containers' IDs."""
        service, found = self._definition.services[name], containers.get(name, [])
        if not service.active and not any(each["State"].get("Running") for each in found):
            return None
        current = [each for each in found if self._is_current(name, each) and not _is_dangling(each, present)]
        old = [each for each in found if each not in current]
        wanted = service.replicas if service.active else max(1, len(current))
        if old and current and len(current) >= wanted and not self._is_waiting(service, old, current):
            return DROP
        if old:
            return HAND_OVER if self._is_handed_over(service, old) else UP
        if len(current) > wanted:
            return UP
        if len(current) < wanted or any(self._needs_start(name, each) for each in current):
            return START
        return None

    def _is_waiting(self, service, old, current):
        """Tell whether a hand-over was interrupted: the new containers came after the old ones, which still run."""
        return self._is_handed_over(service, old) and min(map(number, current)) > max(map(number, old))

    def _is_handed_over(self, service, old):
        return self._hand_over and service.strategy == definition.HAND_OVER \
            and any(each["State"].get("Running") for each in old)

    def _with_bound(self, modes, containers):
        """Add the services that have to be replaced or restarted with others to what is to be done, in order."""
        known = dict(modes)
        for name in self._definition.ordered():
            service = self._definition.services[name]
            if any(known.get(needed) in (UP, HAND_OVER) for needed in service.bound_to) and containers.get(name):
                known[name] = UP
        return [(name, known[name]) for name in self._definition.ordered() if name in known]

    def _is_current(self, name, container):
        """Tell whether a container is of the wanted version."""
        service = self._definition.services.get(name)
        if service is None:
            return False
        mark = label(container, FINGERPRINT)
        if mark:
            return mark == self._project.fingerprint(name)
        # One that another agent made: what has not changed is left alone.
        if name in self._changed or label(container, compose.CONFIG_HASH) != self._hashes[name]:
            return False
        if name not in self._ids:
            self._ids[name] = self._engine.image_id(self._project.images[name])
        return container.get("Image") == self._ids[name]

    def _needs_start(self, name, container):
        state = container["State"]
        if state.get("Running") or state.get("Restarting"):
            return False
        if not expected.is_finished(container):
            return True
        # One that did its work rests, unless it was 'composeapps stop' or the shutdown of the device that ended it.
        if name in self._awaited:
            return False
        if self._rested is not None:
            return container["Id"] not in self._rested
        from composeapps.switching import locks

        with open("/proc/uptime") as uptime:
            booted = time.time() - float(uptime.read().split()[0])
        return locks.instant(state.get("FinishedAt")) < booted

    def _wait(self, names):
        from composeapps.switching import waiting

        waiting.for_conditions(self._project, names, self._project.time_limit, self._notify)

    def _rename(self):
        """Give the containers that stay their names, and free those that others of the app are to have.

        One that is to be replaced goes by a name of its own until then. What an interrupted run left so is
        named again, also on the way back.
        """
        for container in self._borrowed(self._project.containers()):
            self._engine.rename(container["Id"], f"{_ASIDE}{container['Id'][:12]}")
        for container, proper in self._misnamed(self._project.containers()):
            self._engine.rename(container["Id"], proper)

    def _borrowed(self, containers):
        """Yield the containers that have a name which another service's is to have."""
        owners = _owners(self._project)
        for name, found in containers.items():
            for container in found:
                if owners.get(_name(container), name) != name:
                    yield container

    def _misnamed(self, containers):
        """Yield (a container of the wanted version, the name that it is to have and has not)."""
        for name, found in containers.items():
            for container in found:
                service = self._definition.services.get(name)
                if service is None or not self._is_current(name, container):
                    continue
                proper = service.container_name or f"{self._project.name}-{name}-{number(container)}"
                if _name(container) != proper and (service.container_name or _name(container).startswith(_ASIDE)):
                    yield container, proper

    def _networks(self, containers):
        """Return (network as dockerd describes it, the project's containers on it) of those to be made anew."""
        found = []
        for key in sorted(self._definition.managed_networks()):
            listed = self._project.network(key)
            mark = (listed.get("Labels") or {}).get(NETWORK_DEFINITION) if listed else None
            changed = self._changes is not None and key in self._changes.networks
            if listed is None or mark == self._project.network_definition(key) or not mark and not changed:
                continue
            network = self._engine.network(listed["Id"])
            users = [each for found in containers.values() for each in found
                     if network["Name"] in ((each.get("NetworkSettings") or {}).get("Networks") or {})]
            if set(network.get("Containers") or {}) - {each["Id"] for each in users}:
                self._notify(f"{self._project.app_name}: network {key} is defined otherwise now, but containers of "
                             "others are on it: it is kept as it is")
            else:
                found.append((network, users))
        return found

    def _replace_networks(self):
        for network, users in self._networks(self._project.containers()):
            self._notify(f"{self._project.app_name}: making network {network['Name']} anew")
            for container in users:
                self._end(container)
            self._engine.remove("networks", network["Id"])

    def _networks_without_services(self):
        """Return the project's networks that no service is to be attached to any more."""
        networks = self._engine.networks(f"{PROJECT}={self._project.name}")
        managed = {None, "", *self._definition.managed_networks()}
        return [network for network in networks if (network.get("Labels") or {}).get(NETWORK) not in managed]

    def _remove_networks(self, networks):
        """Remove some networks as far as nothing is attached to them."""
        for network in networks:
            described = self._engine.network(network["Id"])
            if described is not None and not described.get("Containers"):
                self._engine.remove("networks", network["Id"])

    def _end(self, container):
        self._notify(f"{self._project.app_name}: removing {_name(container)}")
        self._engine.stop(container["Id"])
        _remove(self._engine, container)


def _check_names(project):
    """Raise UsageError when a container that is not the app's has a name that one of the app's is to have."""
    owners = _owners(project)
    for container in project.engine.containers() if owners else ():
        names = {name.lstrip("/") for name in container.get("Names") or ()}
        for wanted in names & owners.keys():
            if (container.get("Labels") or {}).get(WORKING_DIR) != str(project.directory):
                raise UsageError(f"app {project.app_name}: the container_name '{wanted}' is taken by a container "
                                 f"that is not the app's ({container['Id'][:12]}): remove or rename that one")


def _owners(project):
    """Return {container_name: service} of the services that have one and are started."""
    return {service.container_name: name for name, service in project.definition.services.items()
            if service.container_name and service.active}


def _is_untidy(container):
    """Tell whether a container is one that an interrupted compose left, is about to go, or was paused."""
    return _TEMPORARY.fullmatch(container["Name"]) is not None \
        or container["State"].get("Status") in ("removing", "dead", "paused")


def _name(container):
    return container["Name"].lstrip("/")


def _is_dangling(container, present):
    """Tell whether a container shares something with another one that is gone; ``present`` are the IDs that are there.
    """
    host = container.get("HostConfig") or {}
    shared = [str(host.get(key) or "").removeprefix("container:") for key in ("NetworkMode", "IpcMode", "PidMode")
              if str(host.get(key) or "").startswith("container:")]
    shared += [str(entry).partition(":")[0] for entry in host.get("VolumesFrom") or ()]
    return any(re.fullmatch("[0-9a-f]{64}", identifier) and identifier not in present for identifier in shared)


def _remove(engine, container):
    """Remove a container; wait for a removal that has begun already."""
    deadline = time.monotonic() + _REMOVAL
    while True:
        try:
            engine.remove("containers", container["Id"], force="1")
            return
        except EngineError:
            if engine.container(container["Id"]) is None:
                return
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _remove_image(engine, image, notify):
    """Remove an image from dockerd unless a container or another name needs it; the store keeps its blobs."""
    identifier = install.find_image(image, engine)
    if identifier is None:
        return
    try:
        engine.remove("images", identifier)
    except EngineError as err:
        notify(f"image {image.ref.repository} stays in dockerd: {err}")
