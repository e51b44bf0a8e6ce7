# SPDX-License-Identifier: MIT
"""What became of the last updates: one JSON object a line in ``<state_dir>/history.jsonl``.

The file is small, and replaced as a whole; its last line has a checksum, and it has a second copy
(composeapps.records.sealed). It is a record for people and for ``status``; only what else is lost is decided by it.

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

import hashlib
import json
import time

from composeapps import beneath, durable
from composeapps.errors import StorageError
from composeapps.records import sealed

RECORD = "history.jsonl"

# Entries kept of each app, so that one that fails every hour does not push out the others', and of all.
KEEP_APP = 20
KEEP = 400
MAX_REASON = 2000
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
    seal = json.dumps({sealed.CHECKSUM: hashlib.sha256(data).hexdigest()}).encode() + b"\n"
    try:
        with durable.storage_errors("writing the history"):
            sealed.write(states.root, RECORD, data + seal)
    except StorageError as err:
        notify(f"{entry['app']}: {err}")


def entries(states, app=None):
    """Return the entries, the oldest first, of one app where it is named; what cannot be read is left out."""
    return [entry for entry in read(states)[0] if app in (None, entry["app"])]


def read(states):
    """Return (entries, problem): the problem is "" or the sentence that says what is wrong with the file.

    Takes no lock.
    """
    found = sealed.read(states.root, RECORD, parse)
    if not found.lost:
        return found.value or [], f"the history: {found.problem}" if found.problem else ""
    # Of two damaged ones the lines that make sense are told all the same.
    best = []
    for place in (path(states), sealed.copy_of(states.root, RECORD)):
        try:
            with beneath.open_regular(place) as stream:
                lines = stream.read(sealed.MAX_SIZE).splitlines()
        except OSError:
            continue
        best = max(best, [entry for line in lines if (entry := _entry(line))], key=len)
    return best, f"the history {path(states)} is damaged ({found.problem}): the next update writes it anew"


def parse(data):
    """Return the entries in a record's bytes; raises ValueError for a damaged one, or one without any."""
    lines = data.splitlines(keepends=True)
    last = lines[-1] if lines else b""
    seal = None
    if last.startswith(b'{"' + sealed.CHECKSUM.encode()):
        seal, lines = json.loads(last)[sealed.CHECKSUM], lines[:-1]
        if seal != hashlib.sha256(b"".join(lines)).hexdigest():
            raise ValueError("the checksum does not fit")
    found = [_entry(line) for line in lines]
    if not all(found):
        raise ValueError("a line is damaged")
    if not found and seal is None:
        raise ValueError("empty")
    return found


def _entry(line):
    """Return the entry in a line, None when it has none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(entry, dict) and isinstance(entry.get("app"), str) and not any(
            isinstance(value, list | dict) for value in entry.values()):
        return entry
    return None


def _bounded(kept):
    counts, result = {}, []
    for entry in reversed(kept):
        app = entry["app"]
        counts[app] = counts.get(app, 0) + 1
        if counts[app] <= KEEP_APP and len(result) < KEEP:
            result.append(entry)
    return result[::-1]
