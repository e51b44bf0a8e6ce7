# SPDX-License-Identifier: MIT
"""What the agent remembers of each app: its installed version and whether it should run.

One JSON file an app under ``<state_dir>/apps``, replaced atomically. It can be lost without
harm: installing again finds everything in place.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from composeapps import durable


@dataclass(frozen=True)
class AppState:
    """``uri`` is the installed version; ``images`` maps services to image IDs in dockerd; ``stopped``
    tells that the user stopped the app; ``previous`` is the version that was installed before this
    one and is kept for a rollback, "" when there is none."""

    uri: str
    images: dict = field(default_factory=dict)
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
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self, name):
        """Forget an app; raises StorageError."""
        path = self._file(name)
        with durable.storage_errors(f"removing the state of app {name}"):
            if path.exists():
                path.unlink()
                durable.fsync_directory(path.parent)

    def put(self, name, state):
        """Write an app's state; raises StorageError."""
        path = self._file(name)
        with durable.storage_errors(f"writing the state of app {name}"):
            durable.make_directories(path.parent)
            durable.write_file(path, json.dumps(asdict(state), indent=1).encode() + b"\n")

    def names(self):
        """Return the names of the apps that were installed, sorted."""
        return sorted(unquote(path.stem) for path in self.root.glob("apps/*.json"))

    def write_override(self, name, images):
        """Write the compose file that names each service's image by its ID in dockerd; return its path.

        dockerd knows an image that was loaded by its ID and its tag, not by the digest in the
        registry that the app's compose file pins.
        """
        path = self.root / "overrides" / f"{quote(name, safe='')}.json"
        services = {service: {"image": image, "pull_policy": "never"} for service, image in images.items()}
        with durable.storage_errors(f"writing the override of app {name}"):
            durable.make_directories(path.parent)
            durable.write_file(path, json.dumps({"services": services}, indent=1).encode() + b"\n")
        return path

    def _file(self, name):
        return self.root / "apps" / f"{quote(name, safe='')}.json"
