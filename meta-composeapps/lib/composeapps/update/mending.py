# SPDX-License-Identifier: MIT
"""Getting back what the store lost of a version that an update may have to go back to."""

from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError
from composeapps.pull import pull
from composeapps.store import restore


def ensure_whole(parts, ref):
    """Mend what the store lacks of a version, and tell when that is not possible.

    Arguments:
        parts: the Parts of the device.
        ref: the version's pinned Reference.

    No blob is read, so a damaged one is found only when it is needed. Raises StorageError.
    """
    try:
        whole = not pull.survey(ref, parts.store, _nowhere).missing
    except (CorruptError, NotFoundError):
        whole = False
    if not whole and not mend(parts, ref):
        parts.notify(f"{ref.app_name}: the store has lost a part of the installed version {ref}, so going back to it "
                     "may fail")


def mend(parts, ref):
    """Get what is missing or damaged of a version from the factory store, else from its registry.

    Returns whether the store has all of it now; why not is told.
    """
    try:
        if restore.from_factory(parts.store, parts.config.factory_store, str(ref), parts.notify):
            return True
    except ComposeAppsError as err:
        parts.notify(f"{ref.app_name}: {err}")
    try:
        parts.fetch(pull.survey(ref, parts.store, parts.client, verify=True, keep=True))
    except ComposeAppsError as err:
        parts.notify(f"{ref.app_name}: {err}")
        return False
    return True


def _nowhere():
    raise NotFoundError("the store lacks a part of it")
