# SPDX-License-Identifier: MIT
"""What a device believes of its factory: metadata that becomes newer and newer, and roots that follow each other."""

import copy

from composeapps import durable
from composeapps.delivery.refresh import refresh
from composeapps.delivery.stored import Stored, version_of
from composeapps.delivery.trust import TrustError
from composeapps.errors import ComposeAppsError
from crash.workloads.base import Workload
from support.metadata import NOW, Repository


class Metadata(Workload):
    """A device follows its factory's metadata; a cut may leave it behind, but never lets it go back or stuck."""

    name = "delivery-metadata"
    daemon = False
    rounds = 6
    dialect = "standard"
    size = {"count": 1, "small": 4, "large": 0}

    def _history(self):
        """Return {file: bytes} of what the factory's server gives, for each of its states: the same each time."""
        repository, found = Repository(self.dialect), []
        for number in range(1, self.rounds + 1):
            if number % 2 == 0:
                repository.rotate("root" if number % 4 else "targets")
            repository.publish(number)
            found.append(copy.copy(repository.files))
        return found

    def _stored(self, place, told=None):
        return Stored(place.layout.state / "delivery", place.layout.state / "seeds", "main",
                      (lambda text: None) if told is None else told.append)

    def _refresh(self, place, files):
        return sorted(target.version for target in refresh(
            self._stored(place), lambda name, limit: files.get(name), at=NOW).targets)

    def prepare(self, place):
        seeds = place.layout.state / "seeds"
        durable.make_directories(seeds)
        first = self._history()[0]
        durable.write_file(seeds / "1.root.json", first["1.root.json"])
        self._refresh(place, first)

    def record(self, place):
        for files in self._history()[1:]:
            self._refresh(place, files)

    def oracle(self, place):
        history, stored = self._history(), self._stored(place)
        seen = stored.seen("timestamp")
        if seen is None or not 1 <= seen.version <= self.rounds:
            return [f"what was believed is none of what the factory signed: {seen}"]
        if not 1 <= version_of(stored.root()) <= 1 + self.rounds // 2:
            return [f"the root has the version {version_of(stored.root())}"]
        if seen.version == 1:
            return []
        try:
            found = self._refresh(place, history[seen.version - 2])
        except TrustError:
            return []
        return [f"after version {seen.version} an older one was believed: {found}"]

    def finish(self, place):
        try:
            found = self._refresh(place, self._history()[-1])
        except ComposeAppsError as err:
            return [f"the newest metadata is not believed: {err}"]
        wanted = list(range(1, self.rounds + 1))
        return [] if found == wanted else [f"of the Targets {wanted} these are found: {found}"]


class OtherDialect(Metadata):
    """The same in the dialect of update servers."""

    name = "delivery-metadata-ats"
    dialect = "ats"


DeliveryWorkloads = (Metadata, OtherDialect)
