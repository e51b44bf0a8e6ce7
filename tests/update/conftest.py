# SPDX-License-Identifier: MIT
"""One dockerd for all tests of updates; a device of its own for each."""

import pytest

from support.engine import DockerDaemon
from support.updating import Device, Publisher, run_here


@pytest.fixture(scope="session")
def dockerd(device_root, tmp_path_factory):
    """One dockerd for the tests of this directory."""
    with DockerDaemon(device_root, tmp_path_factory.mktemp("dockerd")) as daemon:
        yield daemon


@pytest.fixture
def name(factory_name):
    """An app's name of its own, so that tests do not see each other's containers."""
    return f"shop{factory_name}"


@pytest.fixture
def publisher(registry, factory_name):
    return Publisher(registry, factory_name)


@pytest.fixture
def device(dockerd, registry, factory_name, monkeypatch):
    """A device that has nothing as yet, and knows the registry."""
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    device = Device(dockerd.directory / factory_name, dockerd, registry.endpoint)
    yield device
    device.remove_containers()


@pytest.fixture
def run(device, capsys):
    """Run a command on the device; return (exit status, standard output, standard error)."""
    def command(*words):
        capsys.readouterr()
        status = run_here(device, *words)
        return (status, *capsys.readouterr())

    return command


@pytest.fixture
def no_registry(monkeypatch, registry, free_port):
    """The registry's name leads to where nobody listens."""
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", f"{registry.host}=http://127.0.0.1:{free_port}")
