# SPDX-License-Identifier: MIT
"""What became of the last updates: one JSON object a line in ``<state_dir>/history.jsonl``.

Each entry is appended, to the file and to its second copy (composeapps.records.lines); of two with the same app,
``started`` and ``result`` that follow each other the last one counts. It is a record for people and for ``status``;
only what else is lost is decided by it.

Keys of an entry; every one but ``time`` and ``app`` may be missing:

``time``     when it was added, UTC, as 2026-01-31T12:00:00Z
``app``      the app's name
``action``   "update", "rollback", "install", "remove", …
``source``   the pinned reference of the version before, "" for none
``target``   the pinned reference that was to run
``result``   "committed"; "rolled-back"; "failed" when nothing running was touched; "deferred"; "rejected"; "removed";
             "repaired" when a damaged record or version of it was put right
``reason``   one sentence, when it did not succeed
``code``     the exit status that this error has
``excused``  true when it went back for something that the version is not to blame for
``attempt``  which try of this target it was, from 1
``started``  when it began; tells one run from another
"""

import time

from composeapps import durable
from composeapps.errors import StorageError
from composeapps.records import lines

RECORD = "history.jsonl"

# Entries kept of each app, so that one that fails every hour does not push out the others', and of all.
KEEP_APP = 20
KEEP = 400
MAX_REASON = 2000
# Characters that all reasons have.
_MAX_REASONS = 200_000
REPAIR, REPAIRED, FAILED = "repair", "repaired", "failed"
REMOVED = "removed"
GOOD = {"committed", REMOVED, REPAIRED}


def path(states):
    """Return the file's place; ``states`` is the StateDirectory."""
    return states.root / RECORD


def timestamp(seconds=None):
    """Return a time as ISO 8601 has it, by seconds since the epoch (default: now); "" for one that no calendar has."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""


def append(states, entry, notify=lambda text: None):
    """Add an entry.

    Arguments:
        states: the StateDirectory; its lock is held by the caller.
        entry: a mapping with the keys above; ``time`` is added.
        notify: called with a sentence when it could not be written.

    Never raises for a file system that refuses: what was done is done. An entry whose ``started`` and result are
    those of the app's last one counts in its place, so that a run may repeat this step, and an update that is put off
    every few minutes leaves one entry.
    """
    entry = {"time": timestamp(), **entry}
    if entry.get("reason"):
        entry["reason"] = str(entry["reason"])[:MAX_REASON]
    try:
        with durable.storage_errors("writing the history"):
            lines.append(states.root, RECORD, entry, _needed, _is_entry)
    except StorageError as err:
        notify(f"{entry['app']}: {err}")


def entries(states, app=None):
    """Return the entries, the oldest first, of one app where it is named; what cannot be read is left out."""
    if app is None:
        return read(states)[0]
    return _needed([entry for entry in lines.read(states.root, RECORD, _is_entry).values if entry["app"] == app])


def read(states):
    """Return (entries, problem): the problem is "" or the sentence that says what is wrong with the file.

    Takes no lock.
    """
    found = lines.read(states.root, RECORD, _is_entry)
    problem = found.problem and f"the history: {found.problem}"
    if found.lost:
        problem = f"the history {path(states)} is damaged ({found.problem}): the next update writes it anew"
    return _needed(found.values), problem


def mend(states):
    """Make the file and its copy the same again; returns the sentence about damage that was found, "" for none.

    The caller holds the agent's lock.
    """
    return lines.mend(states.root, RECORD, _is_entry)


def _is_entry(value):
    """Tell whether a JSON object is an entry."""
    return isinstance(value.get("app"), str) and not any(isinstance(each, (list, dict)) for each in value.values())


def _needed(found):
    """Return those of the entries that count and are not too many, in order."""
    counts, size, last, result = {}, 0, {}, []
    for entry in reversed(found):
        app = entry["app"]
        after, last[app] = last.get(app), entry
        if after and entry.get("started") and all(after.get(key) == entry.get(key) for key in ("started", "result")):
            continue
        counts[app] = counts.get(app, 0) + 1
        size += len(entry.get("reason") or "")
        if counts[app] <= KEEP_APP and len(result) < KEEP and size <= _MAX_REASONS:
            result.append(entry)
    return result[::-1]
