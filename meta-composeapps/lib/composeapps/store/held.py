# SPDX-License-Identifier: MIT
"""Second names for the blobs of an app that is still being fetched: ``<store>/ingest/<hex>.whole``.

A blob has no app before the last one is there, and composectl's ``prune`` removes every blob without an app.
It leaves ``ingest`` alone, so a hard link there is what the next pull takes such a blob back from.
"""

import contextlib
import os
import time

from composeapps.errors import ComposeAppsError

SUFFIX = ".whole"


def path_of(store, digest):
    """Return where the second name of a blob is."""
    return store.ingest / (store.blob_path(digest).name + SUFFIX)


def hold(store, digest):
    """Give a blob its second name, as far as the file system lets us."""
    path = path_of(store, digest)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        os.link(store.blob_path(digest), path)


def take_back(store, digest, size):
    """Put a blob that is missing back from its second name; tell whether it is there now, whole."""
    path = path_of(store, digest)
    if not path.exists():
        return False
    try:
        store.add_file(path, digest, size)
    except (ComposeAppsError, OSError):
        release(store, digest)
        return False
    return True


def release(store, digest):
    """Remove the second name of a blob."""
    with contextlib.suppress(OSError):
        path_of(store, digest).unlink(missing_ok=True)


def collect(store, keep_seconds):
    """Remove the second names of blobs that came longer ago than that, by the clock: nobody goes on with their pull."""
    for path in store.ingest.glob("*" + SUFFIX):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > keep_seconds:
                path.unlink()
