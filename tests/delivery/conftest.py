# SPDX-License-Identifier: MIT
"""A device's metadata and the factory that it trusts, in both dialects."""

import pytest

from composeapps.delivery import refresh
from composeapps.delivery.stored import Stored
from support.metadata import NOW, Repository


class Device:
    """A device that trusts one factory's root."""

    def __init__(self, place, repository, root="1.root.json"):
        self.place, self.repository, self.told = place, repository, []
        self.seeds, self.state = place / "seeds", place / "state"
        self.seeds.mkdir(parents=True)
        (self.seeds / root).write_bytes(repository.files[root])

    def stored(self, tag="main"):
        """Return what a new process finds."""
        return Stored(self.state, self.seeds, tag, self.told.append)

    def refresh(self, tag="main", at=NOW, fetch=None):
        """Ask the factory; return the Refreshed."""
        return refresh.refresh(self.stored(tag), fetch or self.repository.fetch, self.told.append, at)

    def versions(self, **options):
        """Ask the factory; return the versions of all Targets that are signed."""
        return sorted(target.version for target in self.refresh(**options).targets)


@pytest.fixture(params=["standard", "ats"])
def dialect(request):
    return request.param


@pytest.fixture
def repository(dialect):
    return Repository(dialect).publish(1)


@pytest.fixture
def device(tmp_path, repository):
    return Device(tmp_path / "device", repository)


@pytest.fixture
def other_device(tmp_path):
    """Makes devices of other repositories."""
    count = iter(range(1, 100))
    return lambda repository, **options: Device(tmp_path / f"other{next(count)}", repository, **options)
