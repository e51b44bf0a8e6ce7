# SPDX-License-Identifier: MIT
"""One real dockerd for all that is tested here, and devices that use it."""

import itertools
import os
import subprocess

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


@pytest.fixture
def shelf(tmp_path):
    """A Device without a dockerd, for what needs none."""
    return Device(tmp_path)


@pytest.fixture
def small_disk_at():
    """Mount a file system of 1 MB at a place for the test; return the place."""
    mounted = []

    def mount(place):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)
