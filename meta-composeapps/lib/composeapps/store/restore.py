# SPDX-License-Identifier: MIT
"""Restoring an app from the factory store, which an image carries read-only for a factory reset."""

from composeapps.errors import NotFoundError, UsageError
from composeapps.store.preload import copy_app
from composeapps.store.store import Store


def from_factory(store, factory_store, name, notify=lambda text: None):
    """Take what the store lacks of an app, or has damaged, from the factory store.

    Arguments:
        store: the Store; its lock is held by the caller.
        factory_store: the directory of the factory store, which may be missing.
        name: the app's name or pinned reference.
        notify: called with a line of text before the work begins.

    Returns False when the factory store does not have the app, True when the store has all of
    it now. Raises CorruptError when the factory store is damaged too, StorageError.
    """
    factory = Store(factory_store)
    try:
        ref = factory.find_app(name)
    except (NotFoundError, UsageError):
        return False
    notify(f"{ref.app_name}: restoring from {factory_store}")
    store.remove_stale()
    copy_app(factory, store, ref)
    return True
