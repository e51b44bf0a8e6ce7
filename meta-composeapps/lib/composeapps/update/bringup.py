# SPDX-License-Identifier: MIT
"""Bringing one app to where it should be: installed, or brought to another version, or mended, and started.

What is not installed yet is installed from the store. A change of version is an update, with all that
belongs to one. An installed version that the store has lost a part of runs with what dockerd and the
unpacked bundle have, and is mended from the factory store, then from the registry; only when it does not
run so, and cannot be mended, the app goes back to a version that can, and that is an update, too.
"""

import contextlib

from composeapps.errors import (
    ComposeAppsError,
    CorruptError,
    LockedError,
    NotFoundError,
    RolledBackError,
    StorageError,
)
from composeapps.installed import desired, install
from composeapps.oci.reference import parse_pinned
from composeapps.records import history, journal, rejection
from composeapps.update import identify


class Damaged(Exception):
    """The store cannot give the installed version: ``error`` says what is wrong.

    ``runs`` tells whether the app runs all the same, with what dockerd and the unpacked bundle have, or need not
    run; None when it was not to be started.
    """

    def __init__(self, state, error, runs):
        super().__init__(str(error))
        self.state, self.error, self.runs = state, error, runs


# What is asked for: that the app is there; that it runs, unless the user stopped it; that it runs.
INSTALL, KEEP, START = "install", "keep", "start"


def place(parts, name, uri="", what=KEEP):
    """Have an app's installed version in place: images in dockerd, the bundle unpacked. No network is used.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        name: the app's name.
        uri: the version to install when none is.
        what: INSTALL, KEEP or START, for a version that the store has lost a part of: what is there of it is started.

    Returns (App, AppState). Raises Damaged, RejectedError, and what installing raises.
    """
    state = identify.installed(parts, name)
    if state is not None:
        ref = parse_pinned(state.uri)
        try:
            found = _from_store(parts, ref, installed=True)
            if name in parts.unmended:
                _note(parts, ref, history.REPAIRED, "all of it is whole again")
            return found
        except (CorruptError, NotFoundError) as err:
            raise Damaged(state, err, None if what == INSTALL else _run_what_is_there(parts, ref, what)) from None
    ref = parse_pinned(uri) if uri else _find(parts, name)
    parts.permit(str(ref))
    rejection.check(parts.states, str(ref), parts.config.max_failures)
    try:
        app, state = _from_store(parts, ref)
    except (CorruptError, NotFoundError) as err:
        raise type(err)(f"app {name}: {err}; 'composeapps pull {ref}' fetches what is missing or damaged") from None
    identify.met(parts, name, str(ref))
    history.append(parts.states, {"app": name, "action": "install", "target": str(ref), "result": "committed"},
                   parts.notify)
    return app, state


def _run_what_is_there(parts, ref, what):
    """Return whether the app runs with what dockerd and the unpacked bundle have, or was stopped and stays so."""
    name = ref.app_name
    state = parts.states.get(name)
    if state.stopped and what == KEEP:
        return True
    if state.stopped:
        parts.states.put(name, state._replace(stopped=False))
    from composeapps.installed import standin

    return standin.start(ref, state, parts.store, parts.states, parts.config, parts.engine, parts.notify)


def _find(parts, name):
    """Return the Reference of the version that an app's name means while none is installed."""
    factory = desired.factory_set(parts.config)[0]
    try:
        return parts.store.find_app(name)
    except ComposeAppsError:
        if name not in factory:
            raise
    return parse_pinned(factory[name])


def _from_store(parts, ref, installed=False):
    """Install a version from the store, mended from the factory store where need be, which is told of an installed one.
    """
    try:
        return _install(parts, ref)
    except (CorruptError, NotFoundError) as err:
        from composeapps.store import restore

        if not restore.from_factory(parts.store, parts.config.factory_store, str(ref), parts.notify):
            raise err
        if installed:
            _note(parts, ref, history.REPAIRED, f"{err}; taken from the factory store")
    return _install(parts, ref)


def _install(parts, ref):
    app = install.load_from_store(parts.store, ref, known=parts.images)
    state = install.install(app, parts.store, parts.look, parts.config, parts.states, parts.notify)
    if not parts.store.has_app(ref):
        with contextlib.suppress(StorageError):
            parts.store.add_app(app)
            parts.notify(f"{ref.app_name}: the store's entry of {ref} is made anew")
    return app, state


def mend(parts, damaged):
    """Get what the store has lost of an installed version from its registry, or go back.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock, which is not held while bytes come.
        damaged: the Damaged.

    Returns (App, AppState) when all is in place again. Raises CorruptError when the app runs, but could not be
    mended now; RolledBackError when it went back to another version.
    """
    from composeapps.update import mending

    ref = parse_pinned(damaged.state.uri)
    name = ref.app_name
    try:
        mending.from_registry(parts, ref)
        now = parts.states.get(name)
        if now is None or now.uri != damaged.state.uri:
            raise NotFoundError(f"app {name} was changed by another command meanwhile")
        _note(parts, ref, history.REPAIRED, f"{damaged.error}; fetched again")
        parts.look.forget()
        return _install(parts, ref)
    except LockedError as err:
        raise LockedError(f"app {name}: {damaged.error}; {err}") from None
    except ComposeAppsError as err:
        again = f"{damaged.error}, and it cannot be fetched again now: {err}"
    if name not in parts.unmended:
        _note(parts, ref, history.FAILED, again, CorruptError.exit_code)
    if damaged.runs is None:
        raise CorruptError(f"app {name}: {again}")
    if damaged.runs:
        raise CorruptError(f"app {name} runs with what dockerd has of {ref}: {again}; 'composeapps pull --verify "
                           f"{ref}' mends it") from None
    return _go_back(parts, damaged, again)


def _note(parts, ref, result, reason, code=0):
    """Write down what became of damage to an installed version: until it is mended, ``status`` tells of it."""
    history.append(parts.states, {"app": ref.app_name, "action": history.REPAIR, "target": str(ref), "result": result,
                                  "reason": reason, **({"code": code} if code else {})}, parts.notify)


def _go_back(parts, damaged, reason):
    from composeapps.update import mending, process

    name = parse_pinned(damaged.state.uri).app_name
    factory = desired.factory_set(parts.config)[0].get(name)
    for uri in dict.fromkeys(filter(None, (damaged.state.previous, factory))):
        if uri == damaged.state.uri or rejection.rejected(parts.states, uri, parts.config.max_failures):
            continue
        if mending.here(parts, parse_pinned(uri)) is None:
            continue
        parts.notify(f"{name}: {reason}; going back to {uri}")
        process.update(parts, parse_pinned(uri), kind=journal.RECOVERY, reason=reason)
        raise RolledBackError(f"app {name}: {damaged.state.uri} cannot be run any more ({reason}); {uri} runs instead")
    raise CorruptError(f"app {name}: {reason}, and there is no version to go back to: 'composeapps update "
                       f"{damaged.state.uri}' fetches it again")


def change(parts, name, uri):
    """Bring an installed app to another version by an update; the one that it is at runs when that fails.

    Arguments:
        parts: the Parts of the device; the caller holds the agent's lock.
        name: the app's name.
        uri: the version.

    Returns (App, AppState). Raises what process.update does.
    """
    from composeapps.update import process

    process.update(parts, parse_pinned(uri))
    return place(parts, name)
