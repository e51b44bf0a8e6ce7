# SPDX-License-Identifier: MIT
"""Which versions failed on this device, and how often.

One record for all (composeapps.records.sealed), ``<state_dir>/failures.json``: {pinned reference: {"count",
"reason", "update", "time"}}. It outlives the journals. When all of it is lost, the history tells what failed.
"""

import time
from typing import NamedTuple

from composeapps import durable
from composeapps.errors import RejectedError
from composeapps.records import history, sealed

RECORD = "failures.json"

# More versions than a device ever tries; the oldest go first.
_KEPT = 200


class Failures(NamedTuple):
    """``count`` failures of the version ``uri``; ``reason`` is that of the last, at ``time`` (seconds since the epoch).

    ``update`` identifies the update that failed last.
    """

    uri: str
    count: int = 0
    reason: str = ""
    update: str = ""
    time: float = 0.0


def failures(states):
    """Return {uri: Failures} of the versions that failed, the last one last. Takes no lock."""
    found = find(states)
    return _of_history(states) if found.lost else found.value or {}


def find(states):
    """Return the sealed.Found of the failures. Takes no lock."""
    return sealed.read(states.root, RECORD, parse)


def parse(data):
    """Return the failures in a record's bytes; raises ValueError for a damaged one."""
    found = {}
    for uri, entry in sealed.parse(data).items():
        try:
            found[uri] = Failures(uri, int(entry["count"]), str(entry["reason"]), str(entry["update"]),
                                  float(entry["time"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return found


def _of_history(states):
    """Return what the history tells of failures since each version was last committed."""
    found = {}
    for entry in history.entries(states):
        uri = str(entry.get("target") or "")
        if entry.get("result") == "committed":
            found.pop(uri, None)
        elif entry.get("result") == "rolled-back" and uri and entry.get("excused") is not True:
            before = found.pop(uri, Failures(uri))
            found[uri] = Failures(uri, before.count + 1, str(entry.get("reason") or ""))
    return found


def count(states, uri, reason, update):
    """Count a failure of a version; the same ``update`` (a journal's identifier) counts once.

    Returns its Failures. Raises StorageError.
    """
    known = failures(states)
    entry = known.pop(uri, Failures(uri))
    if entry.update != update:
        entry = Failures(uri, entry.count + 1, reason, update, time.time())
        _write(states, {**known, uri: entry})
    return entry


def reject(states, uri, reason, maximum):
    """Have a version rejected at once, as if it had failed ``maximum`` times; raises StorageError."""
    known = failures(states)
    entry = known.pop(uri, Failures(uri))
    _write(states, {**known, uri: Failures(uri, max(entry.count, maximum), reason, "", time.time())})


def forget(states, uri):
    """Forget the failures of a version; return whether there were any. Raises StorageError."""
    known = failures(states)
    if known.pop(uri, None) is None:
        return False
    _write(states, known)
    return True


def rejected(states, uri, maximum):
    """Return the Failures of a version that failed ``maximum`` times or more, else None."""
    entry = failures(states).get(uri)
    return entry if entry is not None and entry.count >= maximum else None


def check(states, uri, maximum):
    """Raise RejectedError for a version that failed ``maximum`` times."""
    entry = rejected(states, uri, maximum)
    if entry is not None:
        raise RejectedError(f"{uri} is rejected, it failed {entry.count} times, the last time because {entry.reason}; "
                            f"'composeapps allow {uri}' lets it be tried again")


def _write(states, known):
    kept = list(known.values())[-_KEPT:]
    value = {entry.uri: {"count": entry.count, "reason": entry.reason, "update": entry.update, "time": entry.time}
             for entry in kept}
    with durable.storage_errors("writing down which versions failed"):
        sealed.write(states.root, RECORD, sealed.dump(value))
