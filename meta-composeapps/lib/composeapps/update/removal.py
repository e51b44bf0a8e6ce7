# SPDX-License-Identifier: MIT
"""Taking an app away that was never committed: its first version failed, so there is none to go back to."""

from composeapps import durable
from composeapps.app.tree import UNREAD
from composeapps.engine import teardown
from composeapps.errors import CorruptError, NotFoundError
from composeapps.installed import appfiles, install, naming


def take_away(parts, ref):
    """Remove an app's containers and networks, and give its directory back as it was before.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        ref: the Reference of the version that was to be installed.

    Named volumes stay, and so do the blobs in the store and what services wrote. It can be repeated. Raises
    EngineError, StorageError.
    """
    directory = install.app_directory(parts.config, ref)
    try:
        compose_file = install.load_from_store(parts.store, ref, reading=UNREAD, config=parts.config).compose
    except (CorruptError, NotFoundError):
        compose_file = None
    teardown.take_down(parts.look, directory, naming.all_of(
        ref.app_name, directory, compose_file, parts.states, parts.look), notify=parts.notify)
    with durable.storage_errors(f"giving back the directory of app {ref.app_name}"):
        appfiles.give_back(ref.app_name, parts.config, parts.notify)
        parts.states.remove_override(ref.app_name)
