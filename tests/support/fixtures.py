# SPDX-License-Identifier: MIT
"""Fixtures for the tests of the package: clients, app directories, an app in a store."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from composeapps.registry.client import RegistryClient, parse_endpoints
from support.device import Device
from support.engine import DockerDaemon
from support.images import multi_platform, push_image


@pytest.fixture
def memory(tmp_path):
    """A directory in memory, where syncs cost nothing, if there is one."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place)


@pytest.fixture
def client(registry):
    """A client of the open registry."""
    client = RegistryClient(endpoints=parse_endpoints(registry.endpoint))
    yield client
    client.close()


@pytest.fixture
def app_dir(tmp_path, registry, factory_name):
    """The directory of an app of two services, whose images are in the registry."""
    for name in ("front", "back"):
        push_image(registry, f"{registry.host}/{factory_name}/{name}:1", multi_platform(name))
    directory = tmp_path / "shop"
    directory.mkdir()
    (directory / "docker-compose.yml").write_text(
        "services:\n"
        "  front:\n"
        f"    image: {registry.host}/{factory_name}/front:1\n"
        "    build: .\n"
        "    labels:\n"
        "      - purpose=shop\n"
        "    environment:\n"
        "      GREETING: ${GREETING:-hello}\n"
        "    volumes:\n"
        "      - ./site.conf:/etc/site.conf:ro\n"
        "  back:\n"
        f"    image: {registry.host}/{factory_name}/back:1\n"
    )
    (directory / "site.conf").write_text("listen 80\n")
    return directory


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB, mounted for the test."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="session")
def dockerd(device_root, tmp_path_factory):
    """One stock dockerd for the tests that do not mind what others have loaded into it."""
    with DockerDaemon(device_root, tmp_path_factory.mktemp("shared-dockerd")) as daemon:
        yield daemon


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
