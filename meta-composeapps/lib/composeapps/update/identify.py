# SPDX-License-Identifier: MIT
"""Which version of an app is installed, by its record, else by what is unpacked and runs."""

from composeapps.errors import CorruptError, StorageError
from composeapps.installed import desired, recovery
from composeapps.records import history, preloaded


def installed(parts, name):
    """Return the AppState of an app, found anew when its record is lost; None when it was never installed.

    Raises CorruptError when it was installed, and nothing tells in which version.
    """
    found = parts.states.find(name)
    if found.value is not None:
        return found.value
    left = not found.lost and recovery.is_left_behind(name, parts.store, parts.states, parts.config, parts.look)
    if not found.lost and not left:
        return None
    factory = desired.factory_set(parts.config)[0]
    state = recovery.recover(name, parts.store, parts.states, parts.config, parts.look,
                             [factory[name]] if name in factory else ())
    what = found.problem or "its record is gone"
    if state is None:
        raise CorruptError(f"app {name}: {what}, and nothing that is unpacked or runs tells its version: "
                           "'composeapps update REF' brings it to one")
    note = f"{what}; by what is unpacked and runs it is {state.uri}"
    parts.notify(f"{name}: {note}")
    parts.states.put(name, state)
    if not preloaded.known(parts.states, name) - {state.uri, state.previous}:
        # Whether the image's version is newer than this one is lost as well: it does not come by itself.
        met(parts, name, *filter(None, (factory.get(name), state.uri)))
    history.append(parts.states, {"app": name, "action": "repair", "target": state.uri, "result": history.REPAIRED,
                                  "reason": note}, parts.notify)
    return state


def source(parts, name):
    """Return the version that an update of an app comes from, "" for none; nothing is written.

    A lost record must not turn an update that fails into a removal of the app.
    """
    found = parts.states.find(name)
    if found.value is not None:
        return found.value.uri
    state = recovery.recover(name, parts.store, parts.states, parts.config, parts.look, recorded=found.lost)
    return state.uri if state else ""


def met(parts, name, *uris):
    """Write down that this device has met versions of an app; a file system that refuses is told only."""
    try:
        preloaded.note(parts.states, name, *uris)
    except StorageError as err:
        parts.notify(f"{name}: {err}")
