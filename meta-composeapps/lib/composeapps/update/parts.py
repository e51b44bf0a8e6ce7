# SPDX-License-Identifier: MIT
"""The parts of a device that an update works with."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from composeapps.engine import Engine
from composeapps.progress import Progress
from composeapps.state import StateDirectory
from composeapps.store import Store


@dataclass
class Parts:
    """What an update needs of a device.

    ``notify`` is called with a line of text at each step that takes time; ``progress`` with the
    pinned Reference of what is fetched, it returns a progress.Progress.
    """

    config: Any
    notify: Any = lambda text: None
    progress: Any = lambda ref: Progress()

    @cached_property
    def store(self):
        """The Store."""
        return Store(self.config.store)

    @cached_property
    def states(self):
        """The StateDirectory."""
        return StateDirectory(self.config.state_dir)

    @cached_property
    def engine(self):
        """The Engine."""
        return Engine(self.config.docker_host)

    @cached_property
    def _client(self):
        from composeapps.pull import registry_client

        return registry_client(self.config)

    def client(self):
        """Return the RegistryClient, made when it is first asked for."""
        return self._client
