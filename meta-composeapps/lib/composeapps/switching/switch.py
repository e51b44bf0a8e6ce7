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
import time
from typing import NamedTuple

from composeapps.engine import client, look
from composeapps.errors import EngineError
from composeapps.installed import expected, install
from composeapps.installed.project import Project
from composeapps.switching import changes as differences
from composeapps.switching import definition
from composeapps.switching.standing import (
    ASIDE,
    DROP,
    HAND_OVER,
    START,
    TEMPORARY,
    Standing,
    check_names,
    is_untidy,
    name_of,
)

_UP = ("up", "--detach", "--no-deps", "--no-build", "--quiet-pull")
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
        notify(f"{project.app_name}: stopping {name_of(container)} before the download")
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
        check_names(project)
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
            check_names(project)
            work.check_locks(checked)
        if install.place_bundle(new, store, config, project.engine, old, notify):
            notify(f"{project.app_name}: bundle unpacked")
        if not stopped:
            work.run()


def start(project, rested=None, notify=lambda text: None, begun=None):
    """Start an installed app's services: those that do not run, are missing, or are of another version.

    Arguments:
        project: the Project, with its definition.
        rested: of an app that was stopped the IDs of the containers that had done their work; else None.
        notify: called with a line of text at each step that takes time.
        begun: what ``begin`` found out, maybe a while ago.

    Locks are not looked at, and nothing is handed over. Raises EngineError, NotRunningError.
    """
    project.engine = look.at(project.engine)
    project.claim()
    with _telling(project):
        work = _Work(project, None, True, False, notify, rested)
        found = begun.to_start if begun else work.to_start()
        # To start what runs meanwhile is harmless, and what has gone since is found out by that.
        if found is not None and work.start(*found):
            return
        if begun and begun.had_containers:
            project.engine.changed(project.directory, project.name)
        work.tidy()
        check_names(project)
        work.run()


def begin(project, rested=None, notify=lambda text: None):
    """Find out whether an installed app's services are as they should be; return what starts them, None for nothing.

    Arguments are those of ``start``, which is what is returned, to be called without any. Raises EngineError.
    """
    project.engine = seen = look.at(project.engine)
    project.claim()
    found = _Work(project, None, True, False, notify, rested).to_start()
    project.engine = seen
    if found is not None and not found[0]:
        return None
    return functools.partial(start, project, rested, notify, _Begun(found, found is None or any(found[1].values())))


class _Begun(NamedTuple):
    """What ``begin`` found out: what ``_Work.to_start`` returned, and whether the app may have containers."""

    to_start: tuple | None
    had_containers: bool


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
        self._force, self._notify = force, notify
        self._standing = Standing(project, changes, hand_over, notify, rested)

    def to_start(self):
        """Return (the services, in order, of which containers are to be started, the project's containers).

        None when something else is to be done as well. Nothing is touched.
        """
        if self._cut_off:
            return None
        containers = self._project.containers(certain=self._standing.rested is not None)
        # The fingerprint of a container covers the networks that it is attached to.
        if any(map(is_untidy, itertools.chain(*containers.values()))) or any(self._standing.leavers(containers)) \
                or any(self._standing.borrowed(containers)) or any(self._standing.misnamed(containers)):
            return None
        modes = self._standing.modes(containers)
        return ([name for name, _mode in modes], containers) if all(mode == START for _name, mode in modes) else None

    def tidy(self):
        """Remove or rename the containers that an interrupted compose left under a temporary name.

        Those that somebody paused go on: compose takes them for running ones, and they hear no signal.
        """
        for found in self._project.containers().values():
            for container in filter(is_untidy, found):
                match = TEMPORARY.fullmatch(container["Name"])
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

        containers, standing = self._project.containers(), self._standing
        affected = [each for _network, users in standing.networks(containers) for each in users]
        old = [each for name, found in containers.items() for each in found if not standing.is_current(name, each)]
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
                self._standing.rested = None
                time.sleep(_PAUSE)
                self.tidy()
                if not self._standing.left():
                    return

    def _run(self):
        from composeapps.switching import handover, waiting

        # docker compose makes none of these.
        unused = self._standing.networks_without_services()
        for container in self._standing.leavers(self._project.containers()):
            self._end(container)
        self._replace_networks()
        self._rename()
        for name, mode in self._standing.left():
            if mode == DROP:
                for container in self._standing.old(name):
                    self._end(container)
        modes = self._standing.with_bound(self._standing.left(), self._project.containers())
        for mode, group in itertools.groupby(modes, key=lambda each: each[1]):
            names = [name for name, _mode in group]
            if mode == HAND_OVER:
                for name in names:
                    self._wait([name])
                    handover.run(self._project, self._definition.services[name], self._standing.old(name),
                                 lambda each, name=name: self._standing.is_current(name, each), self._end, self._force,
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
        wanted = {name: [each for each in containers.get(name, ()) if self._standing.needs_start(name, each)]
                  for name in names}
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

    def _wait(self, names):
        from composeapps.switching import waiting

        waiting.for_conditions(self._project, names, self._project.time_limit, self._notify)

    def _rename(self):
        """Give the containers that stay their names, and free those that others of the app are to have.

        One that is to be replaced goes by a name of its own until then. What an interrupted run left so is
        named again, also on the way back.
        """
        for container in self._standing.borrowed(self._project.containers()):
            self._engine.rename(container["Id"], f"{ASIDE}{container['Id'][:12]}")
        for container, proper in self._standing.misnamed(self._project.containers()):
            self._engine.rename(container["Id"], proper)

    def _replace_networks(self):
        for network, users in self._standing.networks(self._project.containers()):
            self._notify(f"{self._project.app_name}: making network {network['Name']} anew")
            for container in users:
                self._end(container)
            self._engine.remove("networks", network["Id"])

    def _remove_networks(self, networks):
        """Remove some networks as far as nothing is attached to them."""
        for network in networks:
            described = self._engine.network(network["Id"])
            if described is not None and not described.get("Containers"):
                self._engine.remove("networks", network["Id"])

    def _end(self, container):
        self._notify(f"{self._project.app_name}: removing {name_of(container)}")
        self._engine.stop(container["Id"])
        _remove(self._engine, container)


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
