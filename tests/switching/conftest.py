# SPDX-License-Identifier: MIT
"""One real dockerd for all that is tested here, and devices that use it."""

import itertools
import os

import pytest

from support.device import Device
from support.engine import DockerDaemon

_counter = itertools.count(1)


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    """What a power cut leaves on the disk is not looked at here, so nothing waits for it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def daemon(device_root, tmp_path_factory):
    """One dockerd for all of these tests."""
    with DockerDaemon(device_root, tmp_path_factory.mktemp("dockerd")) as running:
        yield running


@pytest.fixture
def device(daemon):
    """A Device with that dockerd."""
    made = Device(daemon.directory / f"device{next(_counter)}", daemon.host, daemon.compose_command)
    made.docker = daemon.base / "usr/bin/docker"
    yield made
    made.clear()
