# SPDX-License-Identifier: MIT
"""One dockerd and one process that commands are forked from, for all tests of this directory."""

import contextlib
import itertools

import pytest

from scale.place import Place
from support.steps import Stepper, modules

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def stepper():
    with Stepper(modules()) as running:
        yield running


@pytest.fixture
def make_place(dockerd, registry, stepper):
    """Make a Place; a context manager."""
    @contextlib.contextmanager
    def make():
        name = f"scale{next(_numbers)}x"
        made = Place(dockerd.directory / name, dockerd, registry, stepper, name)
        try:
            yield made
        finally:
            made.clear()

    return make
