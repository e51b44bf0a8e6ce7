# SPDX-License-Identifier: MIT
"""What the agent remembers of each app: its installed version and whether it should run.

One JSON file an app under ``<state_dir>/apps``, replaced atomically. It can be lost without
harm: installing again finds everything in place.
"""

import json
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from composeapps import durable
from composeapps.oci.names import AppName, from_file_stem


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
    """

    def __init__(self, root):
        self.root = Path(root)
        self.lock_file = self.root / "lock"

    def get(self, name):
        """Return an app's AppState, or None when it was never installed or its file is unreadable."""
        try:
            value = json.loads(self._file(name).read_bytes())
            return AppState(str(value["uri"]), dict(value["images"]), bool(value["stopped"]),
                            str(value.get("previous") or ""))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def remove(self, name):
        """Forget an app; raises StorageError."""
        path = self._file(name)
        with durable.storage_errors(f"removing the state of app {name}"):
            durable.remove_file(path)

    def put(self, name, state):
        """Write an app's state, by which it is not removed any more; raises StorageError."""
        path = self._file(name)
        with durable.storage_errors(f"writing the state of app {name}"):
            durable.make_directories(path.parent)
            value = {**state._asdict(), "images": dict(state.images)}
            durable.write_file(path, json.dumps(value, indent=1).encode() + b"\n")
            self._removal(name).unlink(missing_ok=True)

    def names(self):
        """Return the names of the apps that were installed, sorted."""
        return sorted(filter(None, (from_file_stem(path.stem) for path in self.root.glob("apps/*.json"))))

    def factory(self):
        """Return {name: pinned reference} of the preloaded versions that were installed here; {} when unknown."""
        try:
            value = json.loads((self.root / "factory.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {name: uri for name, uri in value.items() if isinstance(uri, str)} if isinstance(value, dict) else {}

    def put_factory(self, apps):
        """Write what ``factory`` returns, unless it does so already; raises StorageError."""
        if apps != self.factory():
            with durable.storage_errors("writing down the preloaded apps"):
                durable.make_directories(self.root)
                durable.write_file(self.root / "factory.json", json.dumps(apps, indent=1).encode() + b"\n")

    def note_removal(self, name, note):
        """Record that a user removed an app, with what is still to be done for that, {} for nothing.

        A preloaded app so stays away from the next boot on, until somebody installs it. Raises StorageError.
        """
        path = self._removal(name)
        with durable.storage_errors(f"recording the removal of app {name}"):
            durable.make_directories(path.parent)
            durable.write_file(path, json.dumps(note, indent=1).encode() + b"\n")

    def removals(self):
        """Return {name: note} of the apps that a user removed; the note of an unreadable record is {}."""
        found = {}
        for path in sorted(self.root.glob("removed/*.json")):
            try:
                note = json.loads(path.read_bytes())
            except (OSError, ValueError):
                note = {}
            if name := from_file_stem(path.stem):
                found[name] = note if isinstance(note, dict) else {}
        return found

    def forget_removal(self, name):
        """Drop the record of an app's removal; raises StorageError."""
        path = self._removal(name)
        with durable.storage_errors(f"recording the removal of app {name}"):
            durable.remove_file(path)

    def remove_stale(self):
        """Remove what killed writers left; the caller holds the lock."""
        for directory in ("", "apps", "overrides", "removed", "updates"):
            for temporary in (self.root / directory).glob(".tmp-*"):
                temporary.unlink(missing_ok=True)

    def write_override(self, name, document):
        """Write the compose file that stands over an app's own, a mapping; return its path. Raises StorageError."""
        path = self.root / "overrides" / f"{AppName(name).file_stem}.json"
        with durable.storage_errors(f"writing the override of app {name}"):
            durable.make_directories(path.parent)
            durable.write_file(path, json.dumps(document, indent=1).encode() + b"\n")
        return path

    def remove_override(self, name):
        """Remove what ``write_override`` wrote; raises StorageError."""
        with durable.storage_errors(f"removing the override of app {name}"):
            (self.root / "overrides" / f"{AppName(name).file_stem}.json").unlink(missing_ok=True)

    def _removal(self, name):
        return self.root / "removed" / f"{AppName(name).file_stem}.json"

    def _file(self, name):
        return self.root / "apps" / f"{AppName(name).file_stem}.json"
