# SPDX-License-Identifier: MIT
"""What should run on this device: which apps, and of which the image brings another version.

A boot brings it about (``at_boot``); ``status``, ``ps`` and ``check`` tell what of it is still to come (``awaited``).
A preloaded version replaces an installed one when this device has not met it before
(composeapps.records.preloaded), nobody is at another update of the app, and it is not rejected.
"""

from typing import NamedTuple

from composeapps.errors import ComposeAppsError, CorruptError, EngineError, NotFoundError, StorageError
from composeapps.installed import recovery
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
    wishes, factory, _left, problem = _look(parts)
    _remember(parts, factory)
    return wishes, problem


class Awaited(NamedTuple):
    """An app that should run here and is not there yet: ``uri`` is the version, "" when nothing tells which.

    ``text`` says so in a sentence without the app's name, ``remedy`` what brings it; ``preloaded`` tells that it is the
    image's.
    """

    uri: str
    text: str
    remedy: str
    preloaded: bool = False


def awaited(parts, containers=True):
    """Tell what should run on this device, and is not installed yet, or not in the version that the image brings.

    Arguments:
        parts: the Parts of the device, of which ``config``, ``states``, ``store`` and ``look`` are asked.
        containers: whether dockerd is asked, where need be, for containers of apps of which nothing is recorded.

    Returns ({name: Awaited}, [error, …]), the latter about what keeps it from being known. Takes no lock, writes
    nothing and raises nothing; an app whose record is damaged is not awaited: its record tells so.
    """
    try:
        wishes, factory, left, problem = _look(parts, containers, quiet=True)
        first = {entry.app: entry for entry in journal.pending(parts.states)}
        recorded = set(parts.states.names())
    except OSError as err:
        return {}, [StorageError(f"what should run here is not known: {err.filename} cannot be read ({err.strerror})")]
    found = {}
    for name, uri in wishes:
        if name in left:
            found[name] = Awaited("", "nothing is recorded of it, though it is unpacked and has containers",
                                  f"'composeapps run {name}' finds out its version, as the next boot does")
        elif uri and name in recorded:
            found[name] = Awaited(uri, f"the image brings {uri}, which is not in its place yet",
                                  f"'composeapps run {uri}' updates it, as the next boot does", True)
        elif uri:
            found[name] = Awaited(uri, f"the image brings {uri}, which is not installed yet",
                                  f"'composeapps run {name}' does that, as the next boot does", True)
    for name, entry in first.items():
        if name not in recorded and name not in factory:
            found[name] = Awaited(entry.target, f"{entry.target} is not installed yet", "'composeapps update' goes on")
    errors = [problem] if problem else []
    if containers and not left and recovery.unrecorded(parts.store, parts.states, parts.config):
        # Whether these are left behind only dockerd can tell.
        try:
            parts.look.containers()
        except EngineError as err:
            errors.append(err)
    return found, errors


def _look(parts, containers=True, quiet=False):
    """Return ([Wish, …], {name: preloaded version}, {names of apps without a record}, problem or None)."""
    states = parts.states
    factory, problem = factory_set(parts.config)
    gone = states.removals()
    left = set(recovery.left_behind(parts.store, states, parts.config, parts.look) if containers else ())
    wishes = [Wish(name, "" if name in left else _change(parts, name, uri, quiet)) for name, uri in factory.items()
              if name not in gone]
    for name in states.names():
        found = states.find(name)
        if name not in factory and name not in gone and (found.lost or not found.value.stopped):
            wishes.append(Wish(name))
    wishes += [Wish(name) for name in sorted(left) if name not in factory]
    # An image without preloaded apps is nothing to complain about.
    return wishes, factory, left, None if isinstance(problem, NotFoundError) else problem


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


def _change(parts, name, uri, quiet):
    """Return the preloaded version that an app is to be brought to, "" to leave it where it is.

    One that is refused is told, unless ``quiet``.
    """
    states = parts.states
    found = states.find(name)
    if found.value is None:
        return "" if found.lost else uri
    if found.value.uri == uri or journal.read(states, name) is not None or preloaded.find(states).lost:
        return ""
    if uri in preloaded.known(states, name):
        return ""
    refused = rejection.rejected(states, uri, parts.config.max_failures)
    if refused and not quiet:
        parts.notify(f"{name}: stays at {found.value.uri}: the preloaded {uri} is rejected after {refused.count} "
                     "failures")
    return "" if refused else uri
