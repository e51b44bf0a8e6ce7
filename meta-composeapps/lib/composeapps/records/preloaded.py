# SPDX-License-Identifier: MIT
"""Which versions of each app this device has met already, so that a preloaded one comes once.

A set of preloaded apps carries no date: builds are reproducible, and a device's clock may stand in 1970.
So what is known decides. A preloaded version that was installed here before, or is met again, was left for
another one, and an image that brings it back (the slot of an OS that was rolled back, for one) does not
replace what is installed. See docs/decisions/0401-older-factory-sets.md.

One record for all (composeapps.records.sealed), ``<state_dir>/factory.json``: {"known": {app: [pinned
reference, …]}}, the last met last.
"""

from composeapps import durable
from composeapps.records import history, sealed

RECORD = "factory.json"
# Versions kept of an app: more than any device is brought to.
_KEPT = 200


def known(states, app):
    """Return the pinned references of the versions of an app that this device has met. Takes no lock."""
    found = set(_read(states).get(app, ()))
    state = states.get(app)
    found.update(filter(None, (state.uri, state.previous) if state else ()))
    for entry in history.entries(states, app):
        if entry.get("result") == "committed":
            found.update(str(entry[key]) for key in ("source", "target") if entry.get(key))
    return found


def note(states, app, *uris):
    """Write down that a device has met versions of an app; raises StorageError."""
    value = _read(states)
    before = value.get(app, [])
    after = [*(uri for uri in before if uri not in uris), *uris][-_KEPT:]
    if set(after) != set(before):
        with durable.storage_errors(f"writing down the versions of app {app}"):
            sealed.write(states.root, RECORD, sealed.dump({"known": {**value, app: after}}))


def find(states):
    """Return the sealed.Found of the record. Takes no lock."""
    return sealed.read(states.root, RECORD, parse)


def parse(data):
    """Return {app: [pinned reference]} of a record's bytes; raises ValueError for a damaged one."""
    value = sealed.parse(data)
    if not isinstance(value.get("known"), dict):
        # An older agent wrote down the one version of each that it had last installed.
        return {app: [uri] for app, uri in value.items() if isinstance(uri, str)}
    return {app: [uri for uri in uris if isinstance(uri, str)] for app, uris in value["known"].items()
            if isinstance(uris, list)}


def _read(states):
    return find(states).value or {}
