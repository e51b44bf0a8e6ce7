# SPDX-License-Identifier: MIT
"""The parts of a device that an update works with."""

from functools import cached_property

from composeapps.records.state import StateDirectory


class Parts:
    """What an update needs of a device.

    ``notify`` is called with a line of text at each step that takes time; ``progress`` with the
    pinned Reference of what is fetched, it returns a progress.Progress. None shows none.
    """

    def __init__(self, config, notify=lambda text: None, progress=None):
        self.config, self.notify, self.progress = config, notify, progress
        self._client = None

    @cached_property
    def store(self):
        """The Store."""
        from composeapps.store.store import Store

        return Store(self.config.store)

    @cached_property
    def states(self):
        """The StateDirectory."""
        return StateDirectory(self.config.state_dir)

    @cached_property
    def engine(self):
        """The Engine."""
        from composeapps.engine.client import Engine

        return Engine(self.config.docker_host)

    def client(self):
        """Return the RegistryClient, made when it is first asked for."""
        from composeapps.pull.pull import registry_client

        if self._client is None:
            self._client = registry_client(self.config)
            self._client.notify = self.notify
        return self._client

    def fetch(self, survey):
        """Get what a pull.Survey found missing into the store; raises what pull.fetch does."""
        from composeapps.pull.progress import Progress
        from composeapps.pull.pull import fetch

        progress = self.progress(survey.ref) if self.progress and survey.missing else Progress()
        try:
            fetch(survey, self.store, self.client, progress, self.config.parallel, self.config.bandwidth)
        finally:
            progress.close()

    def close(self):
        """Close the connections to registries."""
        if self._client is not None:
            self._client.close()
            self._client = None
