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

from composeapps.errors import (
    ComposeAppsError,
    LockedError,
    NotFoundError,
    RolledBackError,
    UnfinishedError,
    UpdateLockedError,
)
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal, rejection, repair
from composeapps.update import advance, identify, mending, retreat
from composeapps.update.work import Work, reachable, restart, result

UNCHANGED, UPDATED, DROPPED = "unchanged", advance.UPDATED, "dropped"


def update(parts, ref, force=False, soak=None, kind=journal.UPDATE, hold="", reason=""):
    """Bring an app to a version, from where an earlier run left it.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        ref: the version's pinned Reference.
        force: override the update locks of containers.
        soak: seconds of the health gate, None for the configuration's.
        kind: journal.UPDATE; journal.ROLLBACK for what a user goes back to: that may be a rejected version;
            journal.RECOVERY for leaving a version that cannot be run any more, for the ``reason``.
        hold: the step of the journal before the switch (FETCHED, INSTALLED) at which it is left, until another run
            is told to go on; the result is then named like the step that it came to.
        reason: a sentence.

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
            ended = run(parts, entry)
            if entry.target == uri:
                return ended
        except RolledBackError as err:
            if entry.target == uri:
                raise
            parts.notify(str(err))
        except UnfinishedError as err:
            # The way out of a version that does not come up any more is another version.
            left = journal.read(parts.states, name)
            if left is None or left.step != journal.ROLLING_BACK or uri in (left.source, left.target) \
                    or not reachable(parts.engine):
                raise
            parts.notify(f"{err}; it is given up for {uri}")
            source = left.source
        entry = None
    if source is None:
        source = identify.source(parts, name)
        if source == uri:
            if entry is not None:
                drop(parts, entry)
            if mending.here(parts, ref) is None:
                mending.from_registry(parts, ref)
            return result(name, source, uri, UNCHANGED)
    if kind == journal.UPDATE:
        parts.permit(uri)
        rejection.check(parts.states, uri, parts.config.max_failures)
    if entry is None or entry.target != uri or entry.source != source:
        entry = journal.new(name, source, uri, kind=kind, reason=reason)
    return run(parts, entry._replace(force=force, soak=soak, hold=hold))


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
            run(parts, entry)
        except RolledBackError as err:
            parts.notify(str(err))
            return result(name, entry.target, entry.source, UPDATED)
    state = identify.installed(parts, name)
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
        restart(parts, entry.source)
    return result(entry.app, entry.source, entry.target, DROPPED)


def resume(parts, names=None, but=(), begun=False, force=False, soak=None, hold=None):
    """Go on with the updates that an earlier run left, each to its end.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        names: of these apps; of all by default.
        but: not of these.
        begun: only those that may have left an app between two versions. They need no network.
        force: override the update locks of containers, also where the run before did not.
        soak: seconds of the health gate, None for what the run before was told.
        hold: where they are left, as for ``update``; None for what the run before was told.

    Returns (app, result or error) of each, in the order in which they were begun; an error is a
    ComposeAppsError, RolledBackError for one whose old version is in place.
    """
    for note in repair.repair(parts.states):
        parts.notify(note)
    done = []
    for entry in journal.pending(parts.states):
        if (names is None or entry.app in names) and entry.app not in but and (entry.begun or not begun):
            # A download of another app may have let go of the lock meanwhile.
            entry = journal.read(parts.states, entry.app)  # noqa: PLW2901
            if entry is None:
                continue
            if not entry.waits or hold is not None:
                parts.notify(f"{entry.app}: going on with the {entry.kind} to {entry.target} ({entry.step})")
            told = entry._replace(force=force or entry.force, soak=entry.soak if soak is None else soak,
                                  hold=entry.hold if hold is None else hold)
            try:
                _permit(parts, entry)
                done.append((entry.app, run(parts, told)))
            except ComposeAppsError as err:
                done.append((entry.app, err))
    return done


def _permit(parts, entry):
    """See that an update that has touched nothing may still come: it may be from before the device had a factory.

    One that may not is given up; raises what Parts.permit does.
    """
    if entry.begun or entry.kind != journal.UPDATE:
        return
    try:
        parts.permit(entry.target)
    except ComposeAppsError:
        drop(parts, entry)
        raise


def run(parts, entry):
    """Go on with an update to its end, or to where it is held.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        entry: its Journal, a new one or one that an earlier run left.

    Returns and raises as ``update`` does, with RolledBackError for going back.
    """
    work = Work(parts, entry)
    # What leaves an update before its end may leave dockerd at anything.
    renew = parts.look.forget
    try:
        if work.left_behind:
            advance.take_up(work)
        while work.over is None and not work.entry.waits:
            _STEPS[work.entry.step](work)
        # Others have had their time to change it, and the health gate goes by what it hears.
        renew = work.doubt
        if work.over is None:
            # What was held elsewhere before waits here from now on.
            work.record(must=False)
            return result(work.name, work.entry.source, work.entry.target, work.entry.step)
        return work.over
    except KeyboardInterrupt:
        _interrupted(work)
        raise
    except (RolledBackError, LockedError):
        # Who has the lock tells what becomes of the update.
        raise
    except UpdateLockedError as err:
        # One that was found while switching has led back, which is noted already.
        if not work.entry.begun:
            work.tell.note(work.entry, "deferred", str(err), err.exit_code)
        raise
    except ComposeAppsError as err:
        work.tell.failed(work.entry, err)
        raise
    finally:
        renew()


_STEPS = {
    journal.FETCHING: advance.fetch, journal.FETCHED: advance.install, journal.INSTALLED: advance.begin,
    journal.SWITCHING: advance.switch, journal.VERIFYING: advance.verify, journal.COMMITTED: advance.commit,
    journal.ROLLING_BACK: retreat.go_back, journal.ROLLED_BACK: retreat.end_back,
}


def _interrupted(work):
    """An attempt that a user ended says nothing about the version."""
    if work.entry.step in (journal.SWITCHING, journal.VERIFYING):
        work.record(must=False, attempt=max(work.entry.attempt - 1, 0))
    work.parts.notify(f"{work.name}: the {work.entry.kind} is unfinished; 'composeapps update' goes on with it")
