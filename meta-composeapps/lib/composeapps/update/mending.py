# SPDX-License-Identifier: MIT
"""Getting back what the store lost of a version: from the factory store, then from the registry."""

from composeapps.app.tree import WHOLE
from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError
from composeapps.pull import pull
from composeapps.store import restore


def whole(parts, ref):
    """Return the App of a version that the store has all of, with its bundle's contents; None for another one.

    No blob is read but its documents and its bundle.
    """
    try:
        found = pull.survey(ref, parts.store, _nowhere, reading=WHOLE)
    except (CorruptError, NotFoundError):
        return None
    return None if found.missing else found.app


def here(parts, ref):
    """Return what ``whole`` does, after mending the version from the factory store where need be."""
    return whole(parts, ref) or (whole(parts, ref) if from_factory(parts, ref) else None)


def from_factory(parts, ref):
    """Get what is missing or damaged of a version from the factory store; return whether that has it. Why not is told.
    """
    try:
        return restore.from_factory(parts.store, parts.config.factory_store, str(ref), parts.notify)
    except ComposeAppsError as err:
        parts.notify(f"{ref.app_name}: {err}")
        return False


def from_registry(parts, ref):
    """Get what is missing or damaged of a version from its registry; the state's lock is let go of meanwhile.

    Raises what fetching raises, LockedError when another process downloads.
    """
    with parts.downloading(ref):
        parts.fetch(pull.survey(ref, parts.store, parts.client, verify=True, keep=True))


def mend(parts, ref):
    """Get what is missing or damaged of a version from the factory store, else from its registry, under the lock.

    For an app that is between two versions. Returns whether the store has all of it now; why not is told.
    """
    if from_factory(parts, ref):
        return True
    try:
        parts.fetch(pull.survey(ref, parts.store, parts.client, verify=True, keep=True))
    except ComposeAppsError as err:
        parts.notify(f"{ref.app_name}: {err}")
        return False
    return True


def _nowhere():
    raise NotFoundError("the store lacks a part of it")
