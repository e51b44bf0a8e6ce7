# SPDX-License-Identifier: MIT
"""Which versions of each app this device has met already, so that a preloaded one comes once.

A set of preloaded apps carries no date: builds are reproducible, and a device's clock may stand in 1970.
So what is known decides. A preloaded version that was installed here before, or is met again, was left for
another one, and an image that brings it back (the slot of an OS that was rolled back, for one) does not
replace what is installed. See docs/decisions/0401-older-factory-sets.md.

One record for all (composeapps.records.sealed), ``<state_dir>/factory.json``: {"known": {app: [pinned
reference, …]}}, the last met last. What was met since it was written is in ``factory.jsonl``, {"app", "uri"} a line
(composeapps.records.lines); when that is longer, both become one again. So what a version writes does not grow with
those before it, and an agent that does not know of the lines misses the newest half at most, which its history tells.
"""

import functools

from composeapps import durable
from composeapps.records import history, lines, sealed

RECORD, ADDED = "factory.json", "factory.jsonl"
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
    base, added = sealed.read(states.root, RECORD, parse), lines.read(states.root, ADDED, _is_met)
    known = (base.value or {}).get(app, ())
    new = [uri for uri in uris if base.lost or added.lost
           or uri not in known and {"app": app, "uri": uri} not in added.values]
    with durable.storage_errors(f"writing down the versions of app {app}"):
        for uri in new:
            lines.append(states.root, ADDED, {"app": app, "uri": uri}, list, _is_met)
        if new:
            _settle(states)


def _settle(states):
    """Make one of the record and the lines when there are more of these, or the record is lost; raises OSError."""
    base, added = sealed.read(states.root, RECORD, parse), lines.read(states.root, ADDED, _is_met)
    if base.lost or len(added.values) > sum(map(len, (base.value or {}).values())):
        value = {app: uris[-_KEPT:] for app, uris in _merged(base.value, added.values).items()}
        sealed.write(states.root, RECORD, sealed.dump({"known": value}))
        # What is cut off here is found in both.
        sealed.remove(states.root, ADDED)


def find(states):
    """Return the sealed.Found of the record; of a lost one ``value`` is what is left. Takes no lock."""
    # Lines that become a part of the record meanwhile are looked for first.
    added, base = lines.read(states.root, ADDED, _is_met), sealed.read(states.root, RECORD, parse)
    lost = base.lost or added.lost
    if base.value is None and not added.values and not lost:
        return base
    return sealed.Found(_merged(base.value, added.values), base.problem or added.problem, lost)


def mend(states):
    """Make the lines and their copy the same again; returns the sentence about damage, "" for none.

    Lines that are lost stay so until somebody notes what there is.
    """
    return "" if lines.read(states.root, ADDED, _is_met).lost else lines.mend(states.root, ADDED, _is_met)


def _is_met(value):
    return isinstance(value.get("app"), str) and isinstance(value.get("uri"), str)


def _merged(value, added):
    found = {app: list(uris) for app, uris in (value or {}).items()}
    for line in added:
        known = found.setdefault(line["app"], [])
        if line["uri"] not in known:
            known.append(line["uri"])
    return found


@functools.lru_cache(1)
def parse(data):
    """Return {app: [pinned reference]} of a record's bytes, for nobody to change; raises ValueError for damage."""
    value = sealed.parse(data)
    if not isinstance(value.get("known"), dict):
        # An older agent wrote down the one version of each that it had last installed.
        return {app: [uri] for app, uri in value.items() if isinstance(uri, str)}
    return {app: [uri for uri in uris if isinstance(uri, str)] for app, uris in value["known"].items()
            if isinstance(uris, list)}


def _read(states):
    return find(states).value or {}
