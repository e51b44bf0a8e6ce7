# SPDX-License-Identifier: MIT
"""What became of the last updates: one JSON object a line in ``<state_dir>/history.jsonl``.

The file is small, and replaced as a whole, so that a power cut leaves the old or the new one. It
is a record for people and for ``status``: nothing is decided by it, and losing it harms nothing.

Keys of an entry; every one but ``time`` and ``app`` may be missing:

``time``     when it was added, UTC, as 2026-01-31T12:00:00Z
``app``      the app's name
``action``   "update", "rollback", "install", "remove", …
``source``   the pinned reference of the version before, "" for none
``target``   the pinned reference that was to run
``result``   "committed"; "rolled-back"; "failed" when nothing running was touched; "deferred"; "rejected"; "removed"
``reason``   one sentence, when it did not succeed
``code``     the exit status that this error has
``attempt``  which try of this target it was, from 1
``started``  when it began; tells one run from another
"""

import json
import time

from composeapps import durable
from composeapps.errors import StorageError

# Entries kept of each app, so that one that fails every hour does not push out the others', and of all.
KEEP_APP = 20
KEEP = 400
# A file above this size was not written here.
MAX_SIZE = 4 * 1024 * 1024
MAX_REASON = 2000
GOOD = {"committed", "removed"}


def path(states):
    """Return the file's place; ``states`` is the StateDirectory."""
    return states.root / "history.jsonl"


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
    those of the app's last one takes its place, so that a run may repeat this step, and an update that is put off
    every few minutes leaves one entry.
    """
    entry = {"time": timestamp(), **entry}
    if entry.get("reason"):
        entry["reason"] = str(entry["reason"])[:MAX_REASON]
    kept, _problem = read(states)
    last = next((each for each in reversed(kept) if each["app"] == entry["app"]), {})
    if entry.get("started") and all(last.get(key) == entry.get(key) for key in ("started", "result")):
        kept.remove(last)
    kept = _bounded([*kept, entry])
    data = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in kept).encode(errors="replace")
    try:
        with durable.storage_errors("writing the history"):
            durable.make_directories(states.root)
            durable.write_file(path(states), data)
    except StorageError as err:
        notify(f"{entry['app']}: {err}")


def entries(states, app=None):
    """Return the entries, the oldest first, of one app where it is named; what cannot be read is left out."""
    return [entry for entry in read(states)[0] if app in (None, entry["app"])]


def read(states):
    """Return (entries, problem): the problem is "" or the sentence that says what is wrong with the file.

    Takes no lock.
    """
    place = path(states)
    try:
        with open(place, "rb") as stream:
            data = stream.read(MAX_SIZE + 1)
    except FileNotFoundError:
        return [], ""
    except OSError as err:
        return [], f"the history {place} cannot be read: {err.strerror}"
    found, bad = [], 0
    for line in data[:MAX_SIZE].splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and isinstance(entry.get("app"), str) and not any(
                isinstance(value, list | dict) for value in entry.values()):
            found.append(entry)
        else:
            bad += 1
    if bad or len(data) > MAX_SIZE:
        return found, f"the history {place} is damaged ({bad} lines of it): the next update writes it anew"
    return found, ""


def _bounded(kept):
    counts, result = {}, []
    for entry in reversed(kept):
        app = entry["app"]
        counts[app] = counts.get(app, 0) + 1
        if counts[app] <= KEEP_APP and len(result) < KEEP:
            result.append(entry)
    return result[::-1]
