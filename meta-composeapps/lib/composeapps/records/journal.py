# SPDX-License-Identifier: MIT
"""The journal of an app's update: one small file that says how far it came.

A record an app (composeapps.records.sealed), ``<state_dir>/updates/<quoted name>.json``, replaced at each
step and removed when the update is at its end. While there is none, the app's state file says which
version runs. ``composeapps.update.process`` says what each step means for the next run.
"""

import contextlib
import errno
import os
import time
from typing import NamedTuple

from composeapps import durable
from composeapps.oci.names import AppName
from composeapps.records import sealed
from composeapps.records.state import app_of

FETCHING, FETCHED, INSTALLED = "fetching", "fetched", "installed"
SWITCHING, VERIFYING, COMMITTED = "switching", "verifying", "committed"
ROLLING_BACK, ROLLED_BACK = "rolling-back", "rolled-back"
STEPS = (FETCHING, FETCHED, INSTALLED, SWITCHING, VERIFYING, COMMITTED, ROLLING_BACK, ROLLED_BACK)
# From here on the app may be between two versions, and no other command may touch it before it is at one.
BEGUN = STEPS[STEPS.index(SWITCHING):]

UPDATE, ROLLBACK, RECOVERY = "update", "rollback", "recovery"

# Room for the journals on a disk that fills up in the middle of an update.
_RESERVE, _RESERVE_SIZE = ".reserve", 64 * 1024


class Journal(NamedTuple):
    """An update that was begun.

    ``app`` is the app's name; ``source`` the pinned reference of the version it comes from, "" for a
    first installation; ``target`` that of the version it goes to; ``step`` one of STEPS; ``reason``
    says, in a sentence, why it goes back. ``attempt`` counts the runs that have begun to switch.
    ``started`` is when it was begun, in seconds since the epoch, and ``identifier`` tells it from
    every other update. ``kind`` is "update", "rollback" (asked for by a user) or
    "recovery" (from a version that cannot be run any more, for ``reason``); ``force`` whether the
    locks of containers are overridden, ``soak`` the seconds of its health gate, None for the
    configuration's. ``counts`` is False when it goes back for something that the version is not to
    blame for. ``hold`` is the step before the switch, FETCHED or INSTALLED, at which it is to wait until
    somebody says that it goes on, "" for none.
    """

    app: str
    source: str
    target: str
    step: str = FETCHING
    reason: str = ""
    attempt: int = 0
    started: float = 0.0
    identifier: str = ""
    kind: str = UPDATE
    force: bool = False
    soak: int | None = None
    counts: bool = True
    hold: str = ""

    @property
    def waits(self):
        """Whether it has come to where it was to be held, or further, and has touched nothing."""
        return self.hold in STEPS and not self.begun and STEPS.index(self.step) >= STEPS.index(self.hold)

    @property
    def begun(self):
        """Whether services may have been touched, so that the app may be between two versions."""
        return self.step in BEGUN


def new(app, source, target, **options):
    """Return the Journal of an update that begins now; nothing is written."""
    return Journal(app, source, target, started=time.time(), identifier=os.urandom(8).hex(), **options)


def path_of(states, app):
    """Return the file of an app's journal."""
    return states.root / _record(app)


def write(states, journal, **changes):
    """Make a journal, with ``changes`` to its fields, durable; return it as it is now.

    On a full disk the room kept for this is used. Raises StorageError.
    """
    journal = journal._replace(**changes)
    record, data = _record(journal.app), sealed.dump(journal._asdict())
    with durable.storage_errors(f"writing the journal of the update of app {journal.app}"):
        durable.make_directories(_directory(states))
        if journal.step == FETCHING:
            _reserve(_directory(states))
        try:
            sealed.write(states.root, record, data)
        except OSError as err:
            if err.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free_reserve(states)
            sealed.write(states.root, record, data)
    return journal


def free_reserve(states):
    """Give the room that is kept for the journals back to a full file system; return whether there was some."""
    directory = _directory(states)
    try:
        (directory / _RESERVE).unlink()
        durable.fsync_directory(directory)
    except OSError:
        return False
    return True


def remove(states, app):
    """Remove an app's journal: its update is at its end. Raises StorageError."""
    with durable.storage_errors(f"removing the journal of the update of app {app}"):
        sealed.remove(states.root, _record(app))
        if not pending(states):
            free_reserve(states)


def read(states, app):
    """Return an app's Journal, or None when it has none that can be read. Takes no lock."""
    return find(states, app).value


def find(states, app):
    """Return the sealed.Found of an app's Journal; ``lost`` is an update whose step is unknown. Takes no lock."""
    return _found(states, _record(app))


def pending(states):
    """Return the Journals of all updates that are not at their end, in the order they were begun. Takes no lock."""
    found = [_found(states, record).value for record in sealed.names(states.root, "updates")]
    return sorted(filter(None, found), key=lambda journal: (journal.started, journal.app))


def records(states):
    """Yield (record, its parser) of each journal, as composeapps.records.sealed has them."""
    for record in sealed.names(states.root, "updates"):
        yield record, lambda data, record=record: _parse(record, data)


def anything(states):
    """Return whether there is any file of an update, readable or not. Takes no lock."""
    try:
        return any(os.scandir(_directory(states)))
    except FileNotFoundError:
        return False


def tidy(states):
    """Set journals aside that cannot be read, so that the apps' state files decide, and what killed writers left.

    Returns {app: sentence} about the former. The caller holds the agent's lock. Raises StorageError.
    """
    notes = {}
    with durable.storage_errors("setting an unreadable journal aside"):
        states.remove_stale()
        for record in sealed.names(states.root, "updates"):
            found = _found(states, record)
            if found.lost:
                path, aside = states.root / record, states.root / "unreadable" / record.rpartition("/")[2]
                durable.remove_file(sealed.copy_of(states.root, record))
                if path.exists():
                    durable.make_directories(aside.parent)
                    durable.replace(path, aside)
                    durable.fsync_directory(path.parent)
                notes[app_of(record) or record] = (
                    f"the update journal {path} cannot be read and was moved to {aside}: the app stays at the version "
                    "it is recorded at")
        if not pending(states):
            free_reserve(states)
    return notes


def _directory(states):
    return states.root / "updates"


def _reserve(directory):
    """Keep some room; a disk too full even for that will do for the journal perhaps."""
    path = directory / _RESERVE
    with contextlib.suppress(OSError):
        if path.stat().st_size >= _RESERVE_SIZE:
            return
    with contextlib.suppress(OSError):
        # Random, so that a file system that compresses gives it room as well.
        durable.write_file(path, os.urandom(_RESERVE_SIZE), 0o600)


def _found(states, record):
    return sealed.read(states.root, record, lambda data: _parse(record, data))


def _parse(record, data):
    value = sealed.parse(data)
    journal = Journal(**{key: entry for key, entry in value.items() if key in Journal._fields})
    texts = (journal.app, journal.source, journal.target, journal.reason, journal.identifier, journal.kind,
             journal.hold)
    if not all(isinstance(text, str) for text in texts) or journal.step not in STEPS or not journal.target \
            or app_of(record) != journal.app \
            or not isinstance(journal.attempt, int) or not isinstance(journal.started, int | float) \
            or not isinstance(journal.soak, int | None):
        raise ValueError("no journal")
    return journal


def _record(app):
    return f"updates/{AppName(app).file_stem}.json"

