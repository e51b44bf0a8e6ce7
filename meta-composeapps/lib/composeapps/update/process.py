# SPDX-License-Identifier: MIT
"""An update from its begin to its end, whatever interrupts it.

The journal (composeapps.records.journal) is written before each step that it names, so what it says is
what the next run has to reckon with. All that a step does can be done again. The app's state file names
the old version until the update is committed, and is what decides when the journal is lost.

``fetching``
    Blobs are being fetched into the store, where those that are whole stay. What runs is the old
    version; services with the strategies kill-then-download or delete-then-download may be down, and a
    start of the app brings them back. The next run fetches what is missing.
``fetched``
    The store has all of the new version, and lists it. Images are being loaded into dockerd, where the
    new ones lie beside the old ones. The next run loads what dockerd lacks; it needs no network.
``installed``
    dockerd has the images. Locks are looked for, and the callback program is asked; both can put the
    update off. The old version runs. The next run asks again.
``switching``
    The bundle may be either version's, and each service's container may be the old one, the new one,
    both (a hand-over) or none. The next run counts an attempt and applies the new version once more,
    which touches only what is not as it should be. When its blobs were damaged meanwhile, dockerd refuses
    it, or the attempts are used up, because each one took the device down, it goes back.
``verifying``
    All containers were brought to the new version, and its health is watched. The next run cannot know
    what went down with the device, so to it this is the same as ``switching``.
``committed``
    The new version was well. The next run writes the state file, if that was not done, and the history.
``rolling-back``
    As ``switching``, in the other direction; nothing but the old version's being in place ends it.
``rolled-back``
    The old version is in place. The next run writes the history, if that was not done.

Without a journal the state file tells the installed version. A journal is removed last of all, in one
step. A journal that cannot be read is renamed, and counts for none: the old version, or the new one if
the state file was written already, is brought back by the next start of the app.

A file system too full to write the journal: the steps up to ``switching`` are then not begun. Later ones
go on without it, since the step on record leads to the same end; only ``committed`` has to be on the disk.
"""

import contextlib

from composeapps.errors import (
    ComposeAppsError,
    CorruptError,
    EngineError,
    NotFoundError,
    NotRunningError,
    RolledBackError,
    StorageError,
    UnfinishedError,
    UpdateLockedError,
)
from composeapps.installed import install
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal, rejection
from composeapps.records.state import AppState
from composeapps.sizes import human_size
from composeapps.switching import changes as differences
from composeapps.switching import switch
from composeapps.update import callback, health, mending, plan, removal, telling

UNCHANGED, UPDATED, DROPPED = "unchanged", "updated", "dropped"


def update(parts, ref, force=False, soak=None, kind=journal.UPDATE):
    """Bring an app to a version, from where an earlier run left it.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        ref: the version's pinned Reference.
        force: override the update locks of containers.
        soak: seconds of the health gate, None for the configuration's.
        kind: journal.UPDATE, or journal.ROLLBACK for what a user goes back to: that may be a rejected version.

    Returns what came of it, {"app", "source", "target", "result"}, with the result "updated" or
    "unchanged". Raises RolledBackError when the old version is back, UnfinishedError when neither version
    is in place, RejectedError, SpaceError, UpdateLockedError, and what fetching and loading raise; with
    those the app was not touched, and the next run goes on.
    """
    uri, name = str(ref), ref.app_name
    entry = journal.read(parts.states, name)
    source = None
    if entry is not None and entry.begun:
        try:
            result = Update(parts, entry).finish()
            if entry.target == uri:
                return result
        except RolledBackError as err:
            if entry.target == uri:
                raise
            parts.notify(str(err))
        except UnfinishedError as err:
            # The way out of a version that does not come up any more is another version.
            left = journal.read(parts.states, name)
            if left is None or left.step != journal.ROLLING_BACK or uri in (left.source, left.target) \
                    or not _reachable(parts.engine):
                raise
            parts.notify(f"{err}; it is given up for {uri}")
            source = left.source
        entry = None
    if source is None:
        state = parts.states.get(name)
        source = state.uri if state else _unpacked(parts, ref)
        if source == uri:
            if entry is not None:
                drop(parts, entry)
            return _result(name, source, uri, UNCHANGED)
    if kind == journal.UPDATE:
        rejection.check(parts.states, uri, parts.config.max_failures)
    if entry is None or entry.target != uri or entry.source != source:
        entry = journal.new(name, source, uri, kind=kind)
    return Update(parts, entry._replace(force=force, soak=soak)).finish()


def rollback(parts, name, force=False, soak=None):
    """Bring an app back to the version before the installed one, from the store.

    An update that has not touched the app is dropped instead, and the result is "dropped".
    Arguments, result and errors are those of ``update``, with NotFoundError when there is nothing to go
    back to.
    """
    entry = journal.read(parts.states, name)
    if entry is not None and not entry.begun:
        return drop(parts, entry)
    if entry is not None:
        try:
            Update(parts, entry).finish()
        except RolledBackError as err:
            parts.notify(str(err))
            return _result(name, entry.target, entry.source, UPDATED)
    state = parts.states.get(name)
    if state is None:
        have = ", ".join(parts.states.names()) or "none"
        raise NotFoundError(f"app '{name}' is not installed; installed: {have}")
    if not state.previous:
        raise NotFoundError(f"app {name} has no version to go back to: {state.uri} is the first one installed here")
    return update(parts, parse_pinned(state.previous), force, soak, journal.ROLLBACK)


def drop(parts, entry):
    """Give up an update that has not begun to switch; what was fetched stays until the store is pruned."""
    journal.remove(parts.states, entry.app)
    parts.notify(f"{entry.app}: the update to {entry.target}, which had not touched the app yet, is dropped")
    if entry.source:
        _restart(parts, entry.source)
    return _result(entry.app, entry.source, entry.target, DROPPED)


def resume(parts, names=None, but=(), begun=False):
    """Go on with the updates that an earlier run left, each to its end.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        names: of these apps; of all by default.
        but: not of these.
        begun: only those that may have left an app between two versions. They need no network.

    Returns (app, result or error) of each, in the order in which they were begun; an error is a
    ComposeAppsError, RolledBackError for one whose old version is in place.
    """
    for note in journal.tidy(parts.states):
        parts.notify(note)
    done = []
    for entry in journal.pending(parts.states):
        if (names is None or entry.app in names) and entry.app not in but and (entry.begun or not begun):
            parts.notify(f"{entry.app}: going on with the {entry.kind} to {entry.target} ({entry.step})")
            try:
                done.append((entry.app, Update(parts, entry).finish()))
            except ComposeAppsError as err:
                done.append((entry.app, err))
    return done


class Update:
    """One update of one app.

    Arguments:
        parts: the Parts of the device.
        entry: its Journal, a new one or one that an earlier run left.
    """

    def __init__(self, parts, entry):
        self.parts, self.entry, self.name = parts, entry, entry.app
        self._left_behind = entry.begun
        self._images, self._cause, self._over = None, None, None
        self._tell = telling.Telling(parts)

    def finish(self):
        """Go on until the end; returns and raises as ``update`` does, with RolledBackError for going back."""
        handlers = {
            journal.FETCHING: self._fetch, journal.FETCHED: self._load, journal.INSTALLED: self._begin,
            journal.SWITCHING: self._switch, journal.VERIFYING: self._verify, journal.COMMITTED: self._commit,
            journal.ROLLING_BACK: self._go_back, journal.ROLLED_BACK: self._end_back,
        }
        try:
            if self._left_behind:
                self._take_up()
            while self._over is None:
                handlers[self.entry.step]()
            return self._over
        except KeyboardInterrupt:
            self._interrupted()
            raise
        except RolledBackError:
            raise
        except UpdateLockedError as err:
            # One that was found while switching has led back, which is noted already.
            if not self.entry.begun:
                self._tell.note(self.entry, "deferred", str(err), err.exit_code)
            raise
        except ComposeAppsError as err:
            self._tell.failed(self.entry, err)
            raise

    def _record(self, must=True, **changes):
        """Write the journal; a file system that refuses is told only, unless it ``must`` be written."""
        try:
            self.entry = journal.write(self.parts.states, self.entry, **changes)
        except StorageError as err:
            if must:
                raise
            self.parts.notify(f"{self.name}: {err}; going on without it")
            self.entry = self.entry._replace(**changes)

    # Before anything is touched.

    def _fetch(self):
        from composeapps.pull import pull
        from composeapps.space import check as space

        parts, entry = self.parts, self.entry
        if entry.source:
            mending.ensure_whole(parts, parse_pinned(entry.source))
        survey = pull.survey(parse_pinned(entry.target), parts.store, parts.client, keep=True)
        old = self._readable(entry.source)
        changes = differences.between(old, survey.app, parts.store, survey.documents)
        space.check(space.needs(survey.app, survey.missing, parts.store, parts.engine, parts.config,
                                survey.documents))
        self._record()
        try:
            if survey.missing:
                self._tell.ask(self.entry, callback.DOWNLOAD_PRE)
                self._make_way(old, survey.app, changes)
                parts.notify(f"{self.name}: fetching {human_size(survey.size)} in {len(survey.missing)} blobs")
            parts.fetch(survey)
        except BaseException:
            # What is down now may have been stopped by an earlier run, which was cut off.
            if old is not None and any(service.strategy in plan.STOPS_BEFORE for service in changes.touched):
                _restart(parts, entry.source)
            raise
        if survey.missing:
            self._tell.call(self.entry, callback.DOWNLOAD_POST, callback.OK)
        self._record(must=False, step=journal.FETCHED)

    def _make_way(self, old, new, changes):
        parts = self.parts
        try:
            switch.before_download(old, new, changes, parts.states, parts.engine, parts.config, self.entry.force,
                                   parts.notify)
        except UpdateLockedError as err:
            parts.notify(f"{self.name}: {err}; nothing is stopped for the download")

    def _load(self):
        self._load_images(self._read(self.entry.target, heal=True))
        self._record(must=False, step=journal.INSTALLED)

    def _begin(self):
        parts, entry = self.parts, self.entry
        new, old = self._read(entry.target, heal=True), self._readable(entry.source)
        changes = self._between(old, new)
        switch.check_locks(old, new, changes, parts.states, parts.engine, parts.config, entry.force, parts.notify)
        self._tell.ask(self.entry, callback.INSTALL_PRE)
        self._record(step=journal.SWITCHING, attempt=1)

    # From here on, what fails leads back.

    def _take_up(self):
        """Reckon with what an earlier run left: its containers went down with the device, or were never started."""
        _ping(self.parts.engine)
        if self.entry.step not in (journal.SWITCHING, journal.VERIFYING):
            return
        self._tell.call(self.entry, callback.INSTALL_FINAL_PRE)
        attempt = self.entry.attempt + 1
        if attempt > self.parts.config.max_failures:
            self._record(must=False, step=journal.ROLLING_BACK, counts=True,
                         reason=f"{self.entry.attempt} attempts to switch to it were cut off")
        else:
            self._record(must=False, step=journal.SWITCHING, attempt=attempt)

    def _switch(self):
        with self._turning_back():
            parts, entry = self.parts, self.entry
            new, old = self._read(entry.target), self._readable(entry.source)
            changes = self._between(old, new)
            switch.apply(old, new, self._load_images(new), changes, parts.states, parts.engine, parts.config,
                         parts.store, entry.force, parts.notify)
            self._record(must=False, step=journal.VERIFYING)

    def _verify(self):
        with self._turning_back():
            state = self.parts.states.get(self.name)
            # Of an app that the user stopped nothing runs that could be watched.
            if state is None or not state.stopped:
                config, soak = self.parts.config, self.entry.soak
                health.wait(self._read(self.entry.target), self.parts.engine, config,
                            config.soak_time if soak is None else soak, config.health_timeout, self.parts.notify)
        if self.entry.step == journal.VERIFYING:
            with self._still_unfinished("is well but cannot be committed"):
                self._record(step=journal.COMMITTED)

    @contextlib.contextmanager
    def _turning_back(self):
        try:
            yield
        except UpdateLockedError as err:
            self._turn_back(err, counts=False)
        except ComposeAppsError as err:
            if isinstance(err, EngineError) and not _reachable(self.parts.engine):
                raise UnfinishedError(f"the {self.entry.kind} of app {self.name} to {self.entry.target} is unfinished: "
                                      f"{err}; 'composeapps update' goes on with it") from err
            self._turn_back(err, counts=isinstance(err, NotRunningError | EngineError))

    def _turn_back(self, err, counts):
        self._cause = err
        self._record(must=False, step=journal.ROLLING_BACK, reason=str(err), counts=counts)

    @contextlib.contextmanager
    def _still_unfinished(self, what):
        """A full disk here keeps the journal as it is, so the next run comes here again."""
        try:
            yield
        except StorageError as err:
            raise UnfinishedError(f"app {self.name}: {self.entry.target} {what}: {err}; "
                                  "'composeapps update' goes on with it") from err

    def _commit(self):
        parts, entry = self.parts, self.entry
        with self._still_unfinished("is in place but cannot be recorded"):
            self._put_state(entry.target, entry.source)
        with contextlib.suppress(StorageError):
            rejection.forget(parts.states, entry.target)
        self._tell.note(self.entry, "committed")
        self._tell.call(self.entry, callback.INSTALL_POST, callback.OK)
        with self._still_unfinished("is in place, but its journal cannot be removed"):
            journal.remove(parts.states, self.name)
        self._over = _result(self.name, entry.source, entry.target, UPDATED)

    def _go_back(self):
        parts, entry = self.parts, self.entry
        back_to = entry.source or "no version of it"
        if entry.counts:
            try:
                rejection.count(parts.states, entry.target, entry.reason, entry.identifier)
            except StorageError as err:
                parts.notify(f"{self.name}: {err}")
        parts.notify(f"{self.name}: going back to {back_to}: {entry.reason}")
        self._tell.call(self.entry, callback.ROLLBACK_PRE, reason=entry.reason)
        try:
            if entry.source:
                self._apply_source()
            else:
                removal.take_away(parts, parse_pinned(entry.target))
        except ComposeAppsError as err:
            raise UnfinishedError(f"the {entry.kind} of app {self.name} to {entry.target} failed ({entry.reason}), and "
                                  f"going back to {back_to} failed too: {err}; 'composeapps update' tries it again"
                                  ) from err
        self._record(must=False, step=journal.ROLLED_BACK)

    def _apply_source(self):
        parts, entry = self.parts, self.entry
        source, target = self._read(entry.source, heal=True), self._readable(entry.target)
        self._images = None
        switch.apply(target, source, self._load_images(source), self._between(target, source), parts.states,
                     parts.engine, parts.config, parts.store, True, parts.notify, hand_over=False)
        state = parts.states.get(self.name)
        if state is None or state.uri != entry.source:
            self._put_state(entry.source, state.previous if state else "")

    def _end_back(self):
        parts, entry = self.parts, self.entry
        self._tell.note(self.entry, "rolled-back", entry.reason, RolledBackError.exit_code)
        self._tell.call(self.entry, callback.ROLLBACK_POST, callback.OK, reason=entry.reason)
        self._tell.call(self.entry, callback.INSTALL_POST, callback.FAILED, reason=entry.reason)
        refused = rejection.rejected(parts.states, entry.target, parts.config.max_failures)
        if entry.counts and refused:
            self._tell.call(self.entry, callback.REJECTED, reason=entry.reason)
        with self._still_unfinished("was rolled back, but its journal cannot be removed"):
            journal.remove(parts.states, self.name)
        if isinstance(self._cause, UpdateLockedError):
            raise self._cause
        now = f"{entry.source} runs again" if entry.source else "the app is not installed, as before"
        more = f"; after {refused.count} failures this version is rejected" if refused else ""
        raise RolledBackError(f"app {self.name} did not get to {entry.target}: {entry.reason}; {now}{more}")

    # What the steps share.

    def _read(self, uri, heal=False):
        """Read a version from the store; raises what is wrong with it. With ``heal`` that is tried to be mended."""
        ref = parse_pinned(uri)
        try:
            return install.load_from_store(self.parts.store, ref)
        except (CorruptError, NotFoundError):
            if not (heal and mending.mend(self.parts, ref)):
                raise
        return install.load_from_store(self.parts.store, ref)

    def _readable(self, uri):
        """Return a version, or None when there is none or the store cannot give it any more."""
        try:
            return self._read(uri) if uri else None
        except (CorruptError, NotFoundError):
            return None

    def _between(self, old, new):
        try:
            return differences.between(old, new, self.parts.store)
        except (CorruptError, NotFoundError):
            # The version to leave is damaged: what differs is then what its containers show.
            return differences.between(None, new, self.parts.store)

    def _load_images(self, app):
        """Load the images of an app that dockerd lacks, and return them.

        Damage in the store is mended for the version to go back to, and for the new one until something is touched.
        """
        if self._images is None:
            parts = self.parts
            try:
                self._images = install.load_images(app, parts.store, parts.engine, parts.notify)
            except (CorruptError, NotFoundError):
                if str(app.ref) == self.entry.target and self.entry.begun or not mending.mend(parts, app.ref):
                    raise
                self._images = install.load_images(app, parts.store, parts.engine, parts.notify)
        return self._images

    def _put_state(self, uri, previous):
        state = self.parts.states.get(self.name)
        if state is not None and state.uri == uri and state.previous == previous:
            return
        app = self._readable(uri)
        images = install.service_images(app, self._load_images(app)) if app else {}
        wanted = AppState(uri, images, state.stopped if state else False, previous)
        try:
            self.parts.states.put(self.name, wanted)
        except StorageError:
            if not journal.free_reserve(self.parts.states):
                raise
            self.parts.states.put(self.name, wanted)

    def _interrupted(self):
        """An attempt that a user ended says nothing about the version."""
        if self.entry.step in (journal.SWITCHING, journal.VERIFYING):
            self._record(must=False, attempt=max(self.entry.attempt - 1, 0))
        self.parts.notify(f"{self.name}: the {self.entry.kind} is unfinished; 'composeapps update' goes on with it")


def _unpacked(parts, ref):
    """Return the version whose bundle lies unpacked although no state file tells of it, "" for none.

    A lost state file must not turn an update that fails into a removal of the app.
    """
    for other in parts.store.list_apps():
        if other.app_name == ref.app_name and other.digest != ref.digest:
            with contextlib.suppress(ComposeAppsError):
                app = install.load_from_store(parts.store, other)
                if not install.bundle_problems(app, parts.store, parts.config):
                    return str(other)
    return ""


def _restart(parts, uri):
    """Bring all services of the installed version up again, as far as that is possible."""
    from composeapps.switching import runtime

    state = parts.states.get(parse_pinned(uri).app_name)
    if state is None or state.stopped:
        return
    try:
        app = install.load_from_store(parts.store, parse_pinned(uri))
        state = install.install(app, parts.store, parts.engine, parts.config, parts.states, parts.notify)
        runtime.start(app, state, parts.states, parts.config)
    except ComposeAppsError as err:
        parts.notify(str(err))


def _ping(engine):
    engine.data_root()


def _reachable(engine):
    try:
        _ping(engine)
    except EngineError:
        return False
    return True


def _result(app, source, target, result):
    return {"app": app, "source": source, "target": target, "result": result}
