# SPDX-License-Identifier: MIT
"""Directories that are made once and kept: by kind and by what went into them, never found half-made."""

import contextlib
import fcntl
import hashlib
import json
import os
from pathlib import Path

import hostsetup
from composeapps import durable
from fastlane import trees
from fastlane.errors import BuildError


def place():
    """Return the directory of everything that this package keeps."""
    return hostsetup.BUILD.resolve() / "cache" / "moby"


def key(description, *modules):
    """Return a short name for a JSON-able description and for the code of ``modules`` that acts on it."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for module in modules:
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def lock(directory, name, progress):
    """Keep others out of what ``name`` stands for in ``directory``, until the body ends; the second waits."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / f"{name}.lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"another process makes the {name} in {directory}: waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def make(directory, kind, name, fill, keep=1):
    """Return ``directory/kind-name``; the function ``fill`` puts what belongs there into the new directory it is given.

    The caller holds the lock of ``kind``. Directories of the same kind that were not used for longest are removed,
    all but ``keep``. Raises BuildError when the directory cannot be written, and what ``fill`` raises.
    """
    target = directory / f"{kind}-{name}"
    if target.is_dir():
        os.utime(target)
        return target
    new = directory / f"{kind}-{name}.new"
    for stale in directory.glob(f"{kind}-*.new"):
        trees.remove_tree(stale)
    try:
        new.mkdir(parents=True)
        fill(new)
        durable.sync_filesystem(directory)
        os.rename(new, target)
        durable.fsync_directory(directory)
    except OSError as err:
        raise BuildError(f"{target} cannot be made: {err.strerror}") from None
    finally:
        trees.remove_tree(new)
    others = sorted((path for path in directory.glob(f"{kind}-*/") if path != target),
                    key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[keep - 1:]:
        trees.remove_tree(path)
    return target
