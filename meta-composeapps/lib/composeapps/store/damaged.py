# SPDX-License-Identifier: MIT
"""Blobs that arrived damaged: ``<store>/ingest/<hex>.damaged``, so that a device does not fetch them for ever.

A registry whose copy has rotted, or something on the way that changes it, spoils every try. How often that
was and when last is remembered over runs, and after a few tries the next run waits: five minutes, then longer
with each try, a day at most. A whole blob ends it.
"""

import contextlib
import json
import time

from composeapps import beneath, durable
from composeapps.errors import CorruptError

SUFFIX = ".damaged"
# Two runs, each of which tries twice, the second time past the mirrors.
FREE_TRIES = 4
FIRST_WAIT, LONGEST_WAIT = 300, 24 * 3600


def path_of(store, digest):
    """Return where the record of a blob lies."""
    return store.ingest / (store.blob_path(digest).name + SUFFIX)


def note(store, digest):
    """Remember, durably, that a blob arrived damaged once more; what cannot be written is left out."""
    times, _last = _read(path_of(store, digest))
    with contextlib.suppress(OSError):
        durable.make_directories(store.ingest)
        value = {"times": times + 1, "last": int(time.time())}
        durable.write_file(path_of(store, digest), json.dumps(value).encode() + b"\n")


def check(store, digest, what):
    """Raise CorruptError when it is too soon to try a blob again.

    Arguments:
        what: how the error names the blob.
    """
    path = path_of(store, digest)
    times, last = _read(path)
    if times < FREE_TRIES:
        return
    passed = time.time() - last
    # A clock that went back says nothing about the time that passed.
    left = min(FIRST_WAIT * 2 ** min(times - FREE_TRIES, 20), LONGEST_WAIT) - passed if passed >= 0 else 0
    if left > 0:
        raise CorruptError(f"{what} arrived damaged {times} times, and is tried again in {_duration(left)}: mend the "
                           f"registry's copy, and remove {path} to try it at once")


def forget(store, digest):
    """Remove the record of a blob, which is whole."""
    with contextlib.suppress(OSError):
        path_of(store, digest).unlink(missing_ok=True)


def collect(store, keep_seconds):
    """Remove the records of blobs that the store has, and those that were not touched for ``keep_seconds``."""
    for path in store.ingest.glob("*" + SUFFIX):
        with contextlib.suppress(OSError):
            if (store.blobs / path.stem).exists() or time.time() - path.stat().st_mtime > keep_seconds:
                path.unlink()


def _read(path):
    """Return (how often, when last); what cannot be read counts as never."""
    try:
        value = json.loads(beneath.read_regular(path))
        return max(int(value["times"]), 0), float(value["last"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0, 0.0


def _duration(seconds):
    minutes = max(round(seconds / 60), 1)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
