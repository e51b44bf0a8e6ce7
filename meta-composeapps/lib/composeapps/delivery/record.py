# SPDX-License-Identifier: MIT
"""Which Target is installed, which was before it, and how far the installation of another one has come.

One record, ``<state_dir>/delivery/target.json`` with a copy (composeapps.records.sealed);
composeapps.delivery.rollout says what its steps mean. A check-in that finds nothing new loads no more than this.
"""

import contextlib
from typing import NamedTuple

from composeapps import durable
from composeapps.errors import ComposeAppsError, UsageError
from composeapps.oci.names import AppName
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal, sealed
from composeapps.store.factoryset import factory_apps, factory_target

RECORD = "delivery/target.json"
FETCHING, SWITCHING, GOING_BACK, REMOVING = "fetching", "switching", "going-back", "removing"
STEPS = (FETCHING, SWITCHING, GOING_BACK, REMOVING)


class Installed(NamedTuple):
    """A Target that is installed, or was: ``apps`` is {name: pinned reference} of this device's apps of it.

    ``tag`` is the tag of the device's by which it was taken.
    """

    name: str
    version: int
    tag: str
    apps: dict


class Rollout(NamedTuple):
    """An installation that is under way: of ``target`` (an Installed), at ``step``, one of STEPS.

    ``source`` is {app: pinned reference} of what each app was at when it began, "" for one that was not there;
    ``removed`` are the apps that go; ``reason`` says in a sentence why it goes back; ``kind`` is journal.UPDATE or
    journal.ROLLBACK. ``started`` and ``identifier`` tell it from every other one.
    """

    target: Installed
    source: dict
    step: str = FETCHING
    reason: str = ""
    removed: tuple = ()
    kind: str = journal.UPDATE
    started: float = 0.0
    identifier: str = ""


class Record(NamedTuple):
    """The record: ``current`` and ``previous`` are Installed, ``rollout`` a Rollout, each None for none.

    ``declined`` are the names of Targets that somebody went back from: they do not come by themselves.
    """

    current: Installed | None = None
    previous: Installed | None = None
    rollout: Rollout | None = None
    declined: tuple = ()


def find(states):
    """Return the sealed.Found of the Record. Takes no lock."""
    return sealed.read(states.root, RECORD, _parse)


def read(states):
    """Return the Record, an empty one where there is none that can be read. Takes no lock."""
    return find(states).value or Record()


def current(parts):
    """Return the Installed that the device has, None for none: of the record, else the one that it was preloaded with.

    The latter counts as long as its apps are as they were preloaded. Takes no lock.
    """
    found = read(parts.states).current
    if found is not None:
        return found
    with contextlib.suppress(ComposeAppsError):
        name, version = factory_target(parts.config)
        apps = {str(app): uri for app, uri in factory_apps(parts.config).items()} if name else {}
        if apps and all(state is None or state.uri == uri for app, uri in apps.items()
                        for state in [parts.states.get(app)]):
            return Installed(name, version, parts.config.tags[0] if parts.config.tags else "", apps)
    return None


def installed(states):
    """Return the name, version and tag of the Target that is installed, ("", None, "") for none. Takes no lock."""
    current = read(states).current
    return (current.name, current.version, current.tag) if current else ("", None, "")


def write(parts, record):
    """Make a Record durable; the caller holds the lock of ``parts``. Raises StorageError."""
    value = {
        "current": record.current and record.current._asdict(), "previous": record.previous
        and record.previous._asdict(), "declined": list(record.declined),
        "rollout": record.rollout and {**record.rollout._asdict(), "target": record.rollout.target._asdict()}}
    with durable.storage_errors("writing down which Target is installed"):
        sealed.write(parts.states.root, RECORD, sealed.dump(value))


def _parse(data):
    value = sealed.parse(data)
    rollout = value["rollout"]
    if rollout is not None:
        fields = {key: entry for key, entry in rollout.items() if key in Rollout._fields}
        rollout = Rollout(**{**fields, "target": _installed(fields["target"]), "removed": tuple(fields["removed"])})
        texts = (rollout.reason, rollout.kind, rollout.identifier)
        if rollout.step not in STEPS or not isinstance(rollout.started, int | float) or not _are_texts(texts):
            raise ValueError("no installation")
        _check(rollout.source, "")
        _check(dict.fromkeys(rollout.removed, ""), "")
    declined = tuple(value["declined"])
    if not _are_texts(declined):
        raise ValueError("no names of Targets")
    return Record(_installed(value["current"]), _installed(value["previous"]), rollout, declined)


def _are_texts(values):
    return all(isinstance(value, str) for value in values)


def _check(apps, *others):
    """See that a mapping has apps' names and pinned references, or one of the ``others``, as texts."""
    if not _are_texts((*apps, *apps.values())):
        raise ValueError("no apps")
    try:
        for app, uri in apps.items():
            AppName(app)
            if uri not in others:
                parse_pinned(uri)
    except UsageError as err:
        raise ValueError(str(err)) from None


def _installed(value):
    if value is None:
        return None
    found = Installed(str(value["name"]), value["version"], str(value["tag"]), dict(value["apps"]))
    if type(found.version) is not int:
        raise ValueError("no version")
    _check(found.apps)
    return found
