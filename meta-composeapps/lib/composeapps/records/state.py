# SPDX-License-Identifier: MIT
"""What the agent remembers of each app: its installed version and whether it should run.

One record an app (composeapps.records.sealed), ``<state_dir>/apps/<quoted name>.json``. When all of it is
lost, composeapps.installed.recovery finds the version from what is unpacked and labelled.
"""

import contextlib
import functools
import json
import os
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from composeapps import beneath, durable
from composeapps.errors import UsageError
from composeapps.oci.names import AppName, from_file_stem
from composeapps.oci.reference import parse_pinned
from composeapps.records import sealed


class AppState(NamedTuple):
    """``uri`` is the installed version; ``images`` maps services to image IDs in dockerd; ``stopped``
    tells that the user stopped the app; ``previous`` is the version that was installed before this
    one and is kept for a rollback, "" when there is none."""

    uri: str
    images: dict = MappingProxyType({})
    stopped: bool = False
    previous: str = ""


class StateDirectory:
    """The agent's files.

    Arguments:
        root: the directory; created by the first write.

    ``lock_file`` and ``download_lock_file`` are for composeapps.records.lock.
    """

    def __init__(self, root):
        self.root = Path(root)
        self.lock_file = self.root / "lock"
        self.download_lock_file = self.root / "download"
        # Who has which compose project, as composeapps.installed.naming knows it.
        self.projects = None
        # {record: its sealed.Found}, None while others may change them.
        self._known = None

    def keep(self):
        """Let ``read`` read each record once from now on: the lock is held, so that nobody else writes."""
        self._known = {}

    def forget(self):
        """Read what the disk has again: the lock is not held any more."""
        self._known = None

    def get(self, name):
        """Return an app's AppState, or None when there is none that can be read: ``find`` tells which."""
        return self.find(name).value

    def find(self, name):
        """Return the sealed.Found of an app's AppState; ``lost`` is an app that was installed in an unknown version."""
        return self.read(_app_record(name), lambda data: _parse_state(name, data))

    def read(self, record, parse=sealed.parse):
        """Return the sealed.Found of one of the records that only the lock's holder writes, by ``changing`` them."""
        known = self._known
        if known is not None and record in known:
            return known[record]
        found = sealed.read(self.root, record, parse)
        if known is not None and not found.problem:
            known[record] = found
        return found

    @contextlib.contextmanager
    def changing(self, record):
        """Within it a record is written or removed, and is read again; other threads may read it meanwhile."""
        try:
            yield
        finally:
            if self._known is not None:
                self._known.pop(record, None)

    def remove(self, name):
        """Forget an app; raises StorageError."""
        with durable.storage_errors(f"removing the state of app {name}"), self.changing(_app_record(name)):
            sealed.remove(self.root, _app_record(name))

    def put(self, name, state):
        """Write an app's state, by which it is not removed any more; raises StorageError."""
        with durable.storage_errors(f"writing the state of app {name}"), self.changing(_app_record(name)):
            sealed.write(self.root, _app_record(name), sealed.dump({**state._asdict(), "images": dict(state.images)}))
            sealed.remove(self.root, _removal_record(name))

    def names(self):
        """Return the names of the apps that were installed, sorted, also of those whose records are lost."""
        return sorted(filter(None, map(app_of, sealed.names(self.root, "apps"))))

    def note_removal(self, name, note):
        """Record that a user removed an app, with what is still to be done for that, {} for nothing.

        A preloaded app so stays away from the next boot on, until somebody installs it. Raises StorageError.
        """
        with durable.storage_errors(f"recording the removal of app {name}"):
            sealed.write(self.root, _removal_record(name), sealed.dump(note))

    def removals(self):
        """Return {name: note} of the apps that a user removed; the note of an unreadable record is {}."""
        return {name: sealed.read(self.root, record).value or {}
                for record in sealed.names(self.root, "removed") if (name := app_of(record))}

    def forget_removal(self, name):
        """Drop the record of an app's removal; raises StorageError."""
        with durable.storage_errors(f"recording the removal of app {name}"):
            sealed.remove(self.root, _removal_record(name))

    def remove_stale(self):
        """Remove what killed writers left; the caller holds the lock."""
        for directory in ("", "apps", "overrides", "projects", "removed", "rested", "updates"):
            for place in (self.root / directory, self.root / sealed.COPIES / directory):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    for name in os.listdir(place):
                        if name.startswith(".tmp-"):
                            (place / name).unlink(missing_ok=True)

    def write_override(self, name, document):
        """Write the compose file that stands over an app's own, a mapping; return its path. Raises StorageError."""
        path = self.root / "overrides" / f"{AppName(name).file_stem}.json"
        with durable.storage_errors(f"writing the override of app {name}"):
            durable.make_directories(path.parent)
            data = json.dumps(document, indent=1).encode() + b"\n"
            # A start of what is there already needs no room on the disk.
            if not path.is_file() or beneath.read_regular(path) != data:
                durable.write_file(path, data)
        return path

    def remove_override(self, name):
        """Remove what ``write_override`` wrote; raises StorageError."""
        with durable.storage_errors(f"removing the override of app {name}"):
            (self.root / "overrides" / f"{AppName(name).file_stem}.json").unlink(missing_ok=True)


def records(states):
    """Yield (record, its parser) of each app's state and removal, as composeapps.records.sealed has them."""
    for record in filter(app_of, sealed.names(states.root, "apps")):
        yield record, functools.partial(_parse_state, app_of(record))
    for record in sealed.names(states.root, "removed"):
        yield record, sealed.parse


def _parse_state(name, data):
    value = sealed.parse(data)
    state = AppState(str(value["uri"]), dict(value["images"]), bool(value["stopped"]), str(value.get("previous") or ""))
    try:
        ref = parse_pinned(state.uri)
    except UsageError:
        raise ValueError("no version") from None
    if ref.app_name != name:
        raise ValueError("another app's")
    return state


def _app_record(name):
    return f"apps/{AppName(name).file_stem}.json"


def _removal_record(name):
    return f"removed/{AppName(name).file_stem}.json"


def app_of(record):
    """Return the AppName of the app whose record this is, None for a file of another kind."""
    return from_file_stem(record.rpartition("/")[2].removesuffix(".json"))
