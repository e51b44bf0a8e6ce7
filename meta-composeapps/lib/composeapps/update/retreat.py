# SPDX-License-Identifier: MIT
"""The way back to the version before, which ends only when that one is in place."""

import contextlib
import time

from composeapps.engine import faults
from composeapps.errors import (
    ComposeAppsError,
    EngineError,
    NotRunningError,
    RolledBackError,
    StorageError,
    UnfinishedError,
    UpdateLockedError,
)
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal, rejection, reports
from composeapps.switching import switch as switching
from composeapps.update import callback, removal
from composeapps.update.work import reachable, still_unfinished

# Seconds between two tries to go back: what dockerd or another program is still at may come to its end.
PAUSES = (1, 2, 4, 8, 15, 30)


@contextlib.contextmanager
def turning_back(work):
    """What fails within it has the journal lead back; what the device is to blame for counts against no version.

    A dockerd that is away, or came back meanwhile, raises UnfinishedError instead: the next run goes on.
    """
    before = faults.daemon(work.parts.engine)
    try:
        yield
    except UpdateLockedError as err:
        _turn_back(work, err, counts=False)
    except ComposeAppsError as err:
        if isinstance(err, EngineError | NotRunningError) and (
                not reachable(work.parts.engine) or before != faults.daemon(work.parts.engine)):
            work.record(must=False, reason=str(err))
            raise UnfinishedError(f"the {work.entry.kind} of app {work.name} to {work.entry.target} is unfinished, "
                                  f"dockerd went down meanwhile: {err}; 'composeapps update' goes on with it") from err
        _turn_back(work, err, counts=isinstance(err, NotRunningError | EngineError) and not faults.is_devices(err))


def _turn_back(work, err, counts):
    work.cause = err
    work.record(must=False, step=journal.ROLLING_BACK, reason=str(err), counts=counts)


def go_back(work):
    """Bring the old version back, or take away the one that nothing was there before."""
    parts, entry = work.parts, work.entry
    back_to = entry.source or "no version of it"
    if entry.counts:
        try:
            rejection.count(parts.states, entry.target, entry.reason, entry.identifier)
        except StorageError as err:
            parts.notify(f"{work.name}: {err}")
    parts.notify(f"{work.name}: going back to {back_to}: {entry.reason}")
    work.tell.call(work.entry, callback.ROLLBACK_PRE, reason=entry.reason)
    pauses = iter(PAUSES)
    while True:
        try:
            if entry.source:
                _apply_source(work)
            else:
                removal.take_away(parts, parse_pinned(entry.target))
            break
        except ComposeAppsError as err:
            pause = next(pauses, None)
            # Only dockerd may think better of it.
            if pause is None or not isinstance(err, EngineError | NotRunningError):
                raise UnfinishedError(
                    f"the {entry.kind} of app {work.name} to {entry.target} failed ({entry.reason}), and going back "
                    f"to {back_to} failed too: {err}; 'composeapps update' tries it again") from err
            parts.notify(f"{work.name}: going back to {back_to} failed: {err}; it is tried again in {pause} s")
        time.sleep(pause)
    work.record(must=False, step=journal.ROLLED_BACK)


def _apply_source(work):
    parts, entry = work.parts, work.entry
    # What it needs now may have been damaged since.
    source, target = work.read(entry.source, heal=True, again=True), work.readable(entry.target)
    parts.look.forget()
    images = work.load_images(source, again=True)
    switching.apply(target, source, images, work.between(target, source), parts.states,
                    parts.look, parts.config, parts.store, True, parts.notify, hand_over=False)
    state = parts.states.get(work.name)
    if state is None or state.uri != entry.source:
        work.put_state(entry.source, state.previous if state else "")


def end_back(work):
    """Record that the old version is back; raises RolledBackError, or the UpdateLockedError that led back."""
    parts, entry = work.parts, work.entry
    work.tell.note(work.entry, "rolled-back", entry.reason, RolledBackError.exit_code)
    work.tell.call(work.entry, callback.ROLLBACK_POST, callback.OK, reason=entry.reason)
    work.tell.call(work.entry, callback.INSTALL_POST, callback.FAILED, reason=entry.reason)
    refused = rejection.rejected(parts.states, entry.target, parts.config.max_failures)
    if entry.counts and refused:
        work.tell.call(work.entry, callback.REJECTED, reason=entry.reason)
    work.tell.report(work.entry, reports.INSTALLATION_COMPLETED, False, reason=entry.reason,
                     rejected=bool(entry.counts and refused) or None)
    with still_unfinished(entry, "was rolled back, but its journal cannot be removed"):
        journal.remove(parts.states, work.name)
    if isinstance(work.cause, UpdateLockedError):
        raise work.cause
    now = f"{entry.source} runs again" if entry.source else "the app is not installed, as before"
    more = f"; after {refused.count} failures this version is rejected" if refused else ""
    raise RolledBackError(f"app {work.name} did not get to {entry.target}: {entry.reason}; {now}{more}")
