# SPDX-License-Identifier: MIT
"""The parts of a device that an update works with."""

import contextlib
from functools import cached_property

from composeapps.errors import UsageError
from composeapps.records.state import StateDirectory


class Parts:
    """What an update needs of a device.

    ``notify`` is called with a line of text at each step that takes time; ``progress`` with the
    pinned Reference of what is fetched, it returns a progress.Progress. None shows none. ``held`` is the
    records.lock.Held of the state's lock while ``locked`` holds it. ``place`` is where blobs come from whatever their
    registry (composeapps.registry.settings.Registries), None for the registries themselves. ``reporter`` may be set to
    None by who reports of several apps as one. ``permits`` is called with the Parts and a version's pinned reference
    before it comes to a device that takes signed delivery, and raises the error that keeps it away.
    """

    def __init__(self, config, notify=lambda text: None, progress=None, place=None, permits=None):
        self.config, self.notify, self.progress, self.place = config, notify, progress, place
        self._permits = permits
        self._client, self.held = None, None
        # What was read of the images of apps that a start finds in place: many are based on the same ones.
        self.images = {}

    def permit(self, uri):
        """See that a version (a pinned reference, a text) may come; raises what ``permits`` does."""
        if not self.config.server or self.config.unsigned:
            return
        if self._permits is None:
            raise UsageError(f"{uri} cannot be installed by this command: nothing tells whether the factory signed it")
        self._permits(self, uri)

    @contextlib.contextmanager
    def locked(self, wait=False):
        """Hold the state's lock; ``wait`` for another process that has it, else raise LockedError."""
        from composeapps.records import lock

        with lock.exclusive(self.states.lock_file, wait, self.notify) as self.held:
            self.states.keep()
            try:
                yield
            finally:
                self.states.forget()
                self.held = None

    @contextlib.contextmanager
    def downloading(self, *refs):
        """Hold the lock of downloads for versions, and within it let go of the state's lock.

        What was read before may have changed afterwards. Raises LockedError when another process downloads.
        """
        from composeapps.records import lock

        with lock.exclusive(self.states.download_lock_file, subjects=map(str, refs)), self.unlocked():
            yield

    @contextlib.contextmanager
    def unlocked(self):
        """Let go of the state's lock, if it is held."""
        if self.held is None:
            yield
            return
        self.states.forget()
        with self.held.released(self.notify):
            yield
        self.states.keep()

    @contextlib.contextmanager
    def relocked(self):
        """Hold the state's lock again within ``downloading``, for a moment."""
        if self.held is None or self.held.is_held:
            yield
            return
        self.held.take(wait=True, notify=self.notify)
        self.states.keep()
        try:
            yield
        finally:
            self.states.forget()
            self.held.drop()

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
    def reporter(self):
        """The records.reports.Reporter, None where no factory is to be told."""
        if not self.config.server:
            return None
        from composeapps.records.reports import Reporter

        return Reporter(self.states.root, self.notify)

    @cached_property
    def unmended(self):
        """The names of the apps of which the last that is known is damage that could not be mended."""
        from composeapps.records import history

        last = {entry["app"]: entry for entry in history.entries(self.states)}
        return {name for name, entry in last.items()
                if entry.get("action") == history.REPAIR and entry.get("result") == history.FAILED}

    @cached_property
    def engine(self):
        """The Engine."""
        from composeapps.engine.client import Engine

        return Engine(self.config.docker_host)

    @cached_property
    def look(self):
        """The Look at dockerd for what finds out how things are; what waits for a change asks ``engine``."""
        from composeapps.engine.look import Look

        return Look(self.engine)

    def client(self):
        """Return the RegistryClient, made when it is first asked for."""
        from composeapps.pull.pull import registry_client

        if self._client is None:
            self._client = registry_client(self.config, place=self.place)
            self._client.notify = self.notify
        return self._client

    @contextlib.contextmanager
    def fetching_from(self, client):
        """Get all that is missing from ``client``, which gives what a RegistryClient gives, and from no registry."""
        before, self._client = self._client, client
        try:
            yield
        finally:
            self._client = before

    def fetch(self, survey):
        """Get what a pull.Survey found missing into the store; raises what pull.fetch does.

        Within ``downloading``, or with the state's lock held where that does not matter.
        """
        from composeapps.pull.progress import Progress
        from composeapps.pull.pull import fetch

        progress = self.progress(survey.ref) if self.progress and survey.missing else Progress()
        try:
            fetch(survey, self.store, self.client, progress, self.config.parallel, self.config.bandwidth,
                  self.relocked)
        finally:
            progress.close()

    def close(self):
        """Close the connections to registries."""
        if self._client is not None:
            self._client.close()
            self._client = None
