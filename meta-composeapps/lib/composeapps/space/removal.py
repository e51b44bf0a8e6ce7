# SPDX-License-Identifier: MIT
"""Removing apps from the device: what runs, what is installed, and what the store has only for them.

Named volumes stay unless their removal is asked for, and of a preloaded app the version of the
factory set stays in the store, for a reset.

A note is written first (``StateDirectory.note_removal``): from then on the app is not started at
boot, and what is still to be done is known, so that a removal which was cut off is finished by
the next one. The order: the note; the journal of an update, so that it does not go on; the
containers and networks; the bundle; the state; the directories in the store, the ``uri`` first;
the blobs that only this app named; of all apps together dockerd's images. The note goes last, and is
kept without any content for a preloaded app, which the next boot would install again.
"""

import bisect
import contextlib
import functools

from composeapps import durable
from composeapps.engine import look, teardown
from composeapps.errors import ComposeAppsError, CorruptError, EngineError, NotFoundError, UsageError
from composeapps.installed import appfiles, install, naming
from composeapps.installed.placed import Placed
from composeapps.oci.names import AppName
from composeapps.oci.reference import parse_pinned
from composeapps.records import history, journal
from composeapps.space import staleimages
from composeapps.space.contents import Contents, Going
from composeapps.space.prune import Report, Roots


def remove_app(name, store, states, config, engine, volumes=False, notify=lambda text: None, keep=False):
    """Remove an app, or finish that: returns and raises what ``remove`` tells of it. Arguments are those of ``remove``.
    """
    ((_name, result),) = remove([name], store, states, config, engine, volumes, notify, keep)
    if isinstance(result, ComposeAppsError):
        raise result
    return result


def remove(names, store, states, config, engine, volumes=False, notify=lambda text: None, keep=False):
    """Remove apps, or finish that; one that fails does not keep the others from it.

    Arguments:
        names: the apps' names; a pinned reference removes that version from the store, which nothing may need.
        store: the Store.
        states: the StateDirectory; its lock is held by the caller.
        config: the Config.
        engine: the Engine.
        volumes: remove their volumes as well.
        notify: called with a line of text at each step that takes time.
        keep: leave the store as it is.

    Returns [(name, (prune.Report, teardown.Gone)), …] in order, or in place of the pair a ComposeAppsError: UsageError
    for what is no name and for a version that is needed, NotFoundError when there is nothing of it, EngineError when
    dockerd cannot be reached and may have containers of it, StorageError.
    """
    device = _Device(names, store, states, config, engine, notify, keep)
    found = {name: _result(name, device.look_at, name, volumes) for name in dict.fromkeys(names)}
    work = {name: each for name, each in found.items() if isinstance(each, _Removal)}
    with durable.storage_errors("writing down which images go"):
        device.note_images(work.values())
    for name, each in work.items():
        found[name] = _result(name, each.carry_out) or each
    done = {name: each for name, each in work.items() if found[name] is each}
    problem = _result(", ".join(done), device.remove_images, list(done.values()))
    for name, each in done.items():
        found[name] = problem or _result(name, each.end)
    return list(found.items())


def _result(name, action, *arguments):
    """Return what an action returns, or the error that it raises."""
    try:
        with durable.storage_errors(f"removing {name}"):
            return action(*arguments)
    except ComposeAppsError as err:
        return err


class _Device:
    """What a device has, looked at once for all removals of a command. Arguments are those of ``remove``."""

    def __init__(self, names, store, states, config, engine, notify, keep):
        self.store, self.states, self.config, self.notify, self.keep = store, states, config, notify, keep
        self.look = look.at(engine)
        self.installed, self.removals = set(states.names()), states.removals()
        self.versions = {}
        for name, number, _directory in store.app_directories():
            self.versions.setdefault(name, []).append((name, f"sha256:{number}"))
        self._apps = {*self.installed, *self.versions}
        self._sorted = sorted(self._apps)
        self.roots = Roots(store, states, config, None)
        self.roots.forget({name for name in names if "@" not in name})
        self.roots_of = {}
        for name, digest in self.roots.versions():
            self.roots_of.setdefault(name, set()).add((name, digest))
        self.contents = Contents(store, self.roots, config)
        self._last = {entry["app"]: entry for entry in history.entries(states)}

    @functools.cached_property
    def problem(self):
        """The EngineError of a dockerd that cannot be reached, else None."""
        try:
            self.look.containers()
        except EngineError as err:
            return err
        return None

    @functools.cached_property
    def needed(self):
        """{(app name, digest): why something on the device needs that version}, running containers among that."""
        roots = Roots(self.store, self.states, self.config, None if self.problem else self.look)
        return {key: roots.why[uri] for key, uri in roots.versions().items()}

    def look_at(self, name, volumes):
        """Return the removal of an app or of a version; raises what keeps it from being begun."""
        return _OneVersion(self, name) if "@" in name else _App(self, AppName(name), volumes)

    def below(self, name):
        """Return the names of the apps whose directories lie in an app's."""
        # "0" comes next to "/".
        return self._sorted[bisect.bisect_left(self._sorted, f"{name}/"):bisect.bisect_left(self._sorted, f"{name}0")]

    def is_within(self, name):
        """Tell whether an app's directory lies in another app's."""
        parts = name.components
        return any("/".join(parts[:count]) in self._apps for count in range(1, len(parts)))

    def remembers(self, name):
        """Tell whether the journal or the history has an update of an app that did not come to its end."""
        return journal.read(self.states, name) is not None \
            or self._last.get(name, {"result": history.REMOVED}).get("result") not in history.GOOD

    def note_images(self, removals):
        """Write down which images dockerd is to lose, before what names them goes; on a full disk there is no note."""
        if removals:
            with durable.if_there_is_room():
                self._stale(removals).note()

    def remove_images(self, done):
        """Have dockerd lose the images of what was removed; only now can they be judged: the containers are gone."""
        stale, found, whose = self._stale(done), Report(), {}
        with durable.if_there_is_room():
            stale.note()
        if self.problem or not done:
            return
        stale.count(self.look, found)
        stale.remove(self.look, found)
        for each in done:
            each.report.of_dockerd += found.of_dockerd
            for key in each.of_images:
                whose.update((uri, each.report) for uri in self.contents.versions[key].found.images)
        for name in found.images:
            # What an earlier command left to be removed is nobody's here.
            report = whose.get(stale.references[name], done[0].report)
            report.images.append(name)
            report.docker_bytes += stale.sizes.get(stale.references[name], 0)

    def _stale(self, removals):
        going = {key for each in removals for key in each.of_images}
        return staleimages.StaleImages(self.states, self.contents.images_of(going), self.contents.images_but(going))


class _Removal:
    """The removal of what has a ``name``: ``report`` tells what went.

    ``of_images`` are the keys in the Contents of the versions of which dockerd loses the images.
    """

    def __init__(self, device, name, going, of_images):
        self._device, self.name, self._going, self.of_images = device, name, going, of_images
        self.report = Report(list(device.roots.problems))

    def _from_store(self, digests=()):
        """Remove the versions from the store, and what only they name; some further ``digests``, too."""
        contents, store = self._device.contents, self._device.store
        blobs, problems = contents.removable(contents.only_in(self._going, digests), self._going)
        self.report.problems += problems
        Going(store, self.report, [contents.versions[key] for key in self._going], blobs).carry_out(self._device.notify)
        contents.drop(self._going)


class _OneVersion(_Removal):
    """One version goes from the store; raises UsageError when something on the device needs it."""

    def __init__(self, device, uri):
        ref = parse_pinned(uri)
        key = ref.app_name, ref.digest
        if not device.store.app_dir(ref).is_dir():
            raise NotFoundError(f"{ref} is not in the store {device.store.root}")
        if device.needed.get(key):
            raise UsageError(f"{ref} is needed ({device.needed[key]}): 'composeapps rm {ref.app_name}' removes the app "
                             "with all its versions")
        super().__init__(device, uri, [key], [key])
        if device.problem:
            self.report.of_dockerd.append(f"{device.problem}; its images stay until the next 'composeapps prune'")

    def carry_out(self):
        """Do it."""
        self._from_store()

    def end(self):
        """Return what was removed."""
        return self.report, None


class _App(_Removal):
    """An app goes; raises what keeps that from being begun."""

    def __init__(self, device, name, volumes):
        states, config = device.states, device.config
        self._directory, self._placed = name.below(config.compose_root), Placed(config.compose_root, name)
        self._note = device.removals.get(name) or {}
        self._volumes = volumes or self._note.get("volumes") is True
        versions, self._stay = device.versions.get(name, []), device.roots_of.get(name, set())
        # A directory that nothing else tells of is an app's when it has a compose file, and is no other app's data.
        installed = name in device.installed or self._placed.read() is not None \
            or self._placed.compose_file() is not None and not device.is_within(name)
        # Which version is the factory's cannot be told while their list is unreadable.
        doomed = [] if device.roots.everything or device.keep else [key for key in versions if key not in self._stay]
        super().__init__(device, name, doomed, versions if device.keep else doomed)
        self._remembered, self._gone = device.remembers(name), teardown.Gone()
        # All that there may be of it is what status tells of an update that failed.
        self._is_there = bool(self._note or installed or doomed)
        if not self._is_there and (device.keep or not self._remembered):
            self._refuse(versions, states)
        if device.problem and (installed or self._note):
            raise device.problem

    def _refuse(self, versions, states):
        name, device = self.name, self._device
        if versions and device.keep:
            raise NotFoundError(f"app '{name}' is not installed: there is nothing of it but in the store")
        if versions:
            raise NotFoundError(f"app '{name}' is removed already; its preloaded version stays in the store for a "
                                f"reset, and 'composeapps run {name}' brings it back")
        have = ", ".join(sorted({*states.names(), *(ref.app_name for ref in device.store.list_apps())})) or "none"
        raise NotFoundError(f"app '{name}' is not on this device; its apps: {have}")

    def carry_out(self):
        """Do it, but for what dockerd has of its images."""
        if not self._is_there:
            journal.remove(self._device.states, self.name)
            return
        device, name, states, config = self._device, self.name, self._device.states, self._device.config
        engine, blobs = None if device.problem else device.look, _texts(self._note, "blobs")
        named = {digest for key in self._going for digest in device.contents.versions[key].found.digests}
        projects = {*_texts(self._note, "projects"), *naming.all_of(
            name, self._directory, self._placed.compose_file(), states, engine)}
        # On a full disk a removal that is cut off can be given again as well, but the next boot may start the app.
        with durable.if_there_is_room():
            states.note_removal(name, {"projects": sorted(projects), "volumes": self._volumes,
                                       "blobs": sorted({*blobs, *named})})
        journal.remove(states, name)
        with durable.if_there_is_room(), contextlib.suppress(CorruptError, NotFoundError, UsageError):
            state = states.get(name)
            if state is not None and self._placed.read() is None:
                appfiles.adopt(install.load_from_store(device.store, parse_pinned(state.uri)), device.store, config)
        if engine:
            self._gone = teardown.take_down(engine, self._directory, projects, self._volumes, device.notify)
        appfiles.remove(name, config, device.below(name), device.notify)
        states.remove_override(name)
        if self._volumes and engine:
            naming.forget(states, name)
        (states.root / "progress" / f"{name.file_stem}.json").unlink(missing_ok=True)
        states.remove(name)
        self._from_store(() if device.keep else blobs)

    def end(self):
        """End what ``status`` tells of the app's last update, and drop the note; return what was removed."""
        device, states = self._device, self._device.states
        if self._remembered and not device.keep:
            history.append(states, {"app": self.name, "action": "remove", "result": history.REMOVED}, device.notify)
        if self._is_there:
            if self._stay:
                states.note_removal(self.name, {})
            else:
                states.forget_removal(self.name)
        return self.report, self._gone


def _texts(note, key):
    value = note.get(key)
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
