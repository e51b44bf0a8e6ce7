# SPDX-License-Identifier: MIT
"""What should run on this device: which apps, and of which the image brings another version.

A preloaded version replaces an installed one when this device has not met it before
(composeapps.records.preloaded), nobody is at another update of the app, and it is not rejected.
"""

from typing import NamedTuple

from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError, StorageError
from composeapps.oci.names import AppName
from composeapps.records import journal, preloaded, rejection
from composeapps.store.factoryset import factory_apps


class Wish(NamedTuple):
    """An app that should run: ``uri`` is the version that it should be brought to, "" for the installed one."""

    name: str
    uri: str = ""


def factory_set(config):
    """Return ({name: pinned reference} of the preloaded apps, the error that kept it from being read or None).

    What the image's list cannot tell, its factory store does.
    """
    from composeapps.store.store import Store

    if config.factory_file.exists():
        try:
            return factory_apps(config), None
        except ComposeAppsError as err:
            problem = err
    else:
        problem = NotFoundError(f"{config.factory_file} does not exist: this image was built without preloaded apps")
    try:
        listed = {AppName(ref.app_name): str(ref) for ref in Store(config.factory_store).list_apps()}
    except OSError:
        listed = {}
    if listed or isinstance(problem, CorruptError):
        problem = CorruptError(f"{problem}; "
                               + ("what the factory store has counts" if listed else "no preloaded app is known"))
    return listed, problem


def at_boot(parts):
    """Return ([Wish, …], problem): what should run, and the error that is to be told at the end, or None."""
    from composeapps.installed import recovery

    states = parts.states
    factory, problem = factory_set(parts.config)
    gone = states.removals()
    left = set(recovery.left_behind(parts.store, states, parts.config, parts.look))
    wishes = [Wish(name, "" if name in left else _change(parts, name, uri)) for name, uri in factory.items()
              if name not in gone]
    for name in states.names():
        found = states.find(name)
        if name not in factory and name not in gone and (found.lost or not found.value.stopped):
            wishes.append(Wish(name))
    wishes += [Wish(name) for name in sorted(left) if name not in factory]
    _remember(parts, factory)
    # An image without preloaded apps is nothing to complain about.
    return wishes, None if isinstance(problem, NotFoundError) else problem


def _remember(parts, factory):
    """Begin a lost list of the versions that were met anew, with those of the image: a later one's are new again."""
    found = preloaded.find(parts.states)
    if not found.lost:
        return
    parts.notify(f"the list of preloaded versions: {found.problem}; none of this image replaces an installed one")
    try:
        for name, uri in factory.items():
            preloaded.note(parts.states, name, uri)
    except StorageError as err:
        parts.notify(str(err))


def _change(parts, name, uri):
    """Return the preloaded version that an app is to be brought to, "" to leave it where it is."""
    states = parts.states
    found = states.find(name)
    if found.value is None:
        return "" if found.lost else uri
    if found.value.uri == uri or journal.read(states, name) is not None or preloaded.find(states).lost:
        return ""
    if uri in preloaded.known(states, name):
        return ""
    refused = rejection.rejected(states, uri, parts.config.max_failures)
    if refused:
        parts.notify(f"{name}: stays at {found.value.uri}: the preloaded {uri} is rejected after {refused.count} "
                     "failures")
        return ""
    return uri
