# SPDX-License-Identifier: MIT
"""The way to the new version, a function a step: fetch, install, begin, switch, verify, commit.

Each takes the Work and ends with the journal at the next step; composeapps.update.process says what
each step means to a run that finds it. What fails from ``switch`` on leads back (composeapps.update.retreat).
"""

import contextlib

from composeapps.errors import StorageError, UpdateLockedError
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal, rejection
from composeapps.sizes import human_size
from composeapps.switching import changes as differences
from composeapps.switching import switch as switching
from composeapps.update import callback, health, mending, plan
from composeapps.update.retreat import turning_back
from composeapps.update.work import restart, result, still_unfinished

UPDATED = "updated"


def fetch(work):
    """Get what the store lacks of the new version; raises SpaceError before anything is begun."""
    from composeapps.pull import pull
    from composeapps.space import check as space

    parts, entry = work.parts, work.entry
    if entry.source:
        mending.ensure_whole(parts, parse_pinned(entry.source))
    survey = pull.survey(parse_pinned(entry.target), parts.store, parts.client, keep=True)
    old = work.readable(entry.source)
    changes = differences.between(old, survey.app, parts.store, survey.documents)
    space.check(space.needs(survey.app, survey.missing, parts.store, parts.engine, parts.config,
                            survey.documents))
    work.record()
    try:
        if survey.missing:
            work.tell.ask(work.entry, callback.DOWNLOAD_PRE)
            _make_way(work, old, survey.app, changes)
            parts.notify(f"{work.name}: fetching {human_size(survey.size)} in {len(survey.missing)} blobs")
        parts.fetch(survey)
    except BaseException:
        # What is down now may have been stopped by an earlier run, which was cut off.
        if old is not None and any(service.strategy in plan.STOPS_BEFORE for service in changes.touched):
            restart(parts, entry.source)
        raise
    if survey.missing:
        work.tell.call(work.entry, callback.DOWNLOAD_POST, callback.OK)
    work.record(must=False, step=journal.FETCHED)


def _make_way(work, old, new, changes):
    parts = work.parts
    try:
        switching.before_download(old, new, changes, parts.states, parts.engine, parts.config, work.entry.force,
                                  parts.notify)
    except UpdateLockedError as err:
        parts.notify(f"{work.name}: {err}; nothing is stopped for the download")


def install(work):
    """Load what dockerd lacks of the new version's images."""
    work.load_images(work.read(work.entry.target, heal=True))
    work.record(must=False, step=journal.INSTALLED)


def begin(work):
    """Ask those who may put the switch off: containers by their locks, and the callback program."""
    parts, entry = work.parts, work.entry
    new, old = work.read(entry.target, heal=True), work.readable(entry.source)
    changes = work.between(old, new)
    switching.check_locks(old, new, changes, parts.states, parts.engine, parts.config, entry.force, parts.notify)
    work.tell.ask(work.entry, callback.INSTALL_PRE)
    work.record(step=journal.SWITCHING, attempt=1)


def take_up(work):
    """Reckon with what an earlier run left: its containers went down with the device, or were never started."""
    work.parts.engine.data_root()
    if work.entry.step not in (journal.SWITCHING, journal.VERIFYING):
        return
    work.tell.call(work.entry, callback.INSTALL_FINAL_PRE)
    attempt = work.entry.attempt + 1
    if attempt > work.parts.config.max_failures:
        work.record(must=False, step=journal.ROLLING_BACK, counts=True,
                    reason=f"{work.entry.attempt} attempts to switch to it were cut off")
    else:
        work.record(must=False, step=journal.SWITCHING, attempt=attempt)


def switch(work):
    """Bring the containers to the new version."""
    with turning_back(work):
        parts, entry = work.parts, work.entry
        new, old = work.read(entry.target), work.readable(entry.source)
        changes = work.between(old, new)
        switching.apply(old, new, work.load_images(new), changes, parts.states, parts.engine, parts.config,
                        parts.store, entry.force, parts.notify)
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
    work.tell.note(work.entry, "committed")
    work.tell.call(work.entry, callback.INSTALL_POST, callback.OK)
    with still_unfinished(entry, "is in place, but its journal cannot be removed"):
        journal.remove(parts.states, work.name)
    work.over = result(work.name, entry.source, entry.target, UPDATED)
