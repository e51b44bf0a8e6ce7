# SPDX-License-Identifier: MIT
"""The way to the new version, a function a step: fetch, install, begin, switch, verify, commit.

Each takes the Work and ends with the journal at the next step; composeapps.update.process says what
each step means to a run that finds it. What fails from ``switch`` on leads back (composeapps.update.retreat).
"""

import contextlib

from composeapps.app.tree import WHOLE
from composeapps.errors import ComposeAppsError, LockedError, StorageError, UpdateLockedError
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal, lock, preloaded, rejection, reports
from composeapps.sizes import human_size
from composeapps.switching import changes as differences
from composeapps.switching import switch as switching
from composeapps.update import callback, health, mending, plan
from composeapps.update.retreat import turning_back
from composeapps.update.work import restart, result, still_unfinished

UPDATED = "updated"


def fetch(work):
    """Get what the store lacks of the new version, and of the old one; raises SpaceError before anything is begun.

    While bytes come from a registry other commands may change the app: then this update is given up.
    """
    from composeapps.pull import pull

    parts, entry = work.parts, work.entry
    target = parse_pinned(entry.target)
    if entry.target in lock.subjects_of(parts.states.download_lock_file):
        raise LockedError(f"app {work.name}: another process fetches {entry.target}: wait for it, or stop it")
    whole = mending.here(parts, target)
    source = parse_pinned(entry.source) if entry.source and entry.kind != journal.RECOVERY else None
    old = mending.here(parts, source) if source is not None and whole else None
    if old is not None:
        work.keep(old)
    if whole and (source is None or old is not None):
        survey = pull.Survey(target, whole, (), 0)
        _announce(work, survey)
        parts.fetch(survey)
    else:
        _download(work, target, source)
    work.record(must=False, step=journal.FETCHED)


def _download(work, target, source):
    """Get it from the registries, with the state's lock let go of but for the steps that touch the app."""
    from composeapps.pull import pull

    parts, before, stopped = work.parts, _seen(work), False
    try:
        with parts.downloading(*filter(None, (target, source))):
            if source is not None:
                _keep_way_back(work, source)
            survey = pull.survey(target, parts.store, parts.client, keep=True, reading=WHOLE)
            with parts.relocked():
                _expect(work, before)
                changes = _announce(work, survey)
                stopped = any(service.strategy in plan.STOPS_BEFORE for service in changes.touched)
                before = _seen(work)
            parts.fetch(survey)
    except BaseException:
        # What is down now may have been stopped by an earlier run, which was cut off.
        if stopped and _seen(work) == before:
            restart(parts, work.entry.source)
        raise
    _expect(work, before)
    # Others may have changed what dockerd has meanwhile.
    parts.look.forget()
    if survey.missing:
        work.tell.call(work.entry, callback.DOWNLOAD_POST, callback.OK)
        work.tell.report(work.entry, reports.DOWNLOAD_COMPLETED, True, bytes=survey.size)


def _keep_way_back(work, source):
    """Mend the version to go back to, where it is not whole; that it cannot be is no reason not to leave it."""
    from composeapps.pull import pull

    parts, old = work.parts, mending.whole(work.parts, source)
    if old is not None:
        work.keep(old)
        return
    try:
        parts.fetch(pull.survey(source, parts.store, parts.client, verify=True, keep=True))
    except ComposeAppsError as err:
        parts.notify(f"{source.app_name}: the store has lost a part of the installed version {source}, so going back "
                     f"to it may fail: {err}")


def _announce(work, survey):
    """Look for room, write the journal, and do what is to be done before a download; return the Changes."""
    from composeapps.space import check as space

    parts = work.parts
    parts.look.ahead(parts.look.images, parts.look.data_root)
    old = work.readable(work.entry.source)
    changes = differences.between(old, work.keep(survey.app), parts.store)
    space.check(space.needs(survey.app, survey.missing, parts.store, parts.look, parts.config,
                            survey.documents))
    work.record()
    work.tell.report(work.entry, reports.INIT_STARTED)
    work.tell.report(work.entry, reports.INIT_COMPLETED, True, bytes=survey.size, blobs=len(survey.missing))
    if survey.missing:
        work.tell.ask(work.entry, callback.DOWNLOAD_PRE)
        work.tell.report(work.entry, reports.DOWNLOAD_STARTED, bytes=survey.size)
        _make_way(work, old, survey.app, changes)
        parts.notify(f"{work.name}: fetching {human_size(survey.size)} in {len(survey.missing)} blobs")
    return changes


def _seen(work):
    """Return what no other command may change while this one fetches."""
    states = work.parts.states
    entry, state = journal.read(states, work.name), states.get(work.name)
    return entry.identifier if entry else "", state.uri if state else ""


def _expect(work, before):
    if _seen(work) != before:
        raise ComposeAppsError(f"app {work.name}: another command changed it while {work.entry.target} was fetched; "
                               "what was fetched stays in the store: give the command again")


def _make_way(work, old, new, changes):
    parts = work.parts
    try:
        switching.before_download(old, new, changes, parts.states, parts.look, parts.config, work.entry.force,
                                  parts.notify)
    except UpdateLockedError as err:
        parts.notify(f"{work.name}: {err}; nothing is stopped for the download")


def install(work):
    """Load what dockerd lacks of the new version's images."""
    work.load_images(work.read(work.entry.target, heal=True))
    work.record(must=False, step=journal.INSTALLED)


def check_locks(work):
    """Look whether the containers that a switch would touch let it; raises UpdateLockedError. Nothing is changed."""
    parts, entry = work.parts, work.entry
    new, old = work.read(entry.target, heal=True), work.readable(entry.source)
    changes = work.between(old, new)
    # Loading may have taken its time.
    work.doubt()
    parts.look.ahead(parts.look.first_list, parts.look.ended, parts.look.networks)
    work.checked = switching.check_locks(old, new, changes, parts.states, parts.look, parts.config, entry.force,
                                         parts.notify)


def begin(work):
    """Ask those who may put the switch off: containers by their locks, and the callback program."""
    check_locks(work)
    work.tell.ask(work.entry, callback.INSTALL_PRE)
    if work.parts.config.callback_program:
        work.checked = None
    work.tell.report(work.entry, reports.INSTALLATION_STARTED)
    work.record(step=journal.SWITCHING, attempt=1)


def take_up(work):
    """Reckon with what an earlier run left: its containers went down with the device, or were never started."""
    work.parts.engine.data_root()
    if work.entry.step not in (journal.SWITCHING, journal.VERIFYING):
        return
    work.tell.call(work.entry, callback.INSTALL_FINAL_PRE)
    entry = work.entry
    attempt = entry.attempt + 1
    if attempt > work.parts.config.max_failures:
        # A reason is there when it was dockerd that went down, and not the device.
        excused = bool(entry.reason)
        work.record(must=False, step=journal.ROLLING_BACK, counts=not excused,
                    reason=f"{entry.attempt} attempts to switch to it were cut off"
                    + (f", the last time because {entry.reason}" if excused else ""))
    else:
        work.record(must=False, step=journal.SWITCHING, attempt=attempt,
                    reason=entry.reason if entry.kind == journal.RECOVERY else "")


def switch(work):
    """Bring the containers to the new version."""
    with turning_back(work):
        parts, entry = work.parts, work.entry
        new, old = work.read(entry.target), work.readable(entry.source)
        changes = work.between(old, new)
        images, checked, work.checked = work.load_images(new), work.checked, None
        if checked is None:
            parts.look.forget(images=False)
        switching.apply(old, new, images, changes, parts.states, parts.look, parts.config, parts.store, entry.force,
                        parts.notify, checked=checked or ())
        work.tell.report(entry, reports.APPLIED)
        work.record(must=False, step=journal.VERIFYING)


def verify(work):
    """Watch the new version's health."""
    with turning_back(work):
        state = work.parts.states.get(work.name)
        # Of an app that the user stopped nothing runs that could be watched.
        if state is None or not state.stopped:
            config, soak = work.parts.config, work.entry.soak
            health.wait(work.read(work.entry.target), work.parts.engine, config,
                        config.soak_time if soak is None else soak, config.health_timeout, work.parts.notify)
    if work.entry.step == journal.VERIFYING:
        with still_unfinished(work.entry, "is well but cannot be committed"):
            work.record(step=journal.COMMITTED)


def commit(work):
    """Record the new version as the installed one."""
    parts, entry = work.parts, work.entry
    with still_unfinished(entry, "is in place but cannot be recorded"):
        work.put_state(entry.target, entry.source)
    with contextlib.suppress(StorageError):
        rejection.forget(parts.states, entry.target)
        preloaded.note(parts.states, work.name, *filter(None, (entry.source, entry.target)))
    work.tell.note(work.entry, "committed", entry.reason)
    work.tell.call(work.entry, callback.INSTALL_POST, callback.OK)
    work.tell.report(work.entry, reports.INSTALLATION_COMPLETED, True)
    with still_unfinished(entry, "is in place, but its journal cannot be removed"):
        journal.remove(parts.states, work.name)
    work.over = result(work.name, entry.source, entry.target, UPDATED)
