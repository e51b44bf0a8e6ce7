# SPDX-License-Identifier: MIT
"""One dockerd for all tests of updates; a device of its own for each."""

import time

import pytest

from composeapps.engine import client
from composeapps.records import journal
from support.counting import CountingSocket
from support.engine import DockerDaemon
from support.updating import WELL, Device, Publisher, run_here, service


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


@pytest.fixture(scope="module")
def home(dockerd, registry, request):
    """The device of a module's tests."""
    device = Device(dockerd.directory / request.module.__name__.rpartition(".")[2], dockerd, registry.endpoint)
    yield device
    device.remove_containers()


@pytest.fixture
def device(home, registry, monkeypatch):
    """The module's device with its first configuration, knowing the registry."""
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    home.configure()
    return home


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
    """Call it, and the registry's name leads to where nobody listens."""
    return lambda: monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", f"{registry.host}=http://127.0.0.1:{free_port}")


@pytest.fixture(scope="module")
def counted(dockerd, request):
    """The socket through which the module's dockerd is asked, which counts."""
    name = request.module.__name__.rpartition(".")[2]
    with CountingSocket(dockerd.directory / f"{name}.sock", dockerd.socket) as socket:
        yield socket


@pytest.fixture
def counted_device(home, counted):
    """The module's device without apps, whose dockerd is asked through the socket that counts."""
    home.configure(docker_host=counted.host)
    yield home
    home.remove_containers()
    for name in home.states.names():
        home.states.remove(name)


@pytest.fixture
def count(run, counted, monkeypatch):
    """Run a command as a process of its own would; return how many requests it made, docker compose's left out.

    With ``hurry`` the clock that it sees runs so many times as fast.
    """
    def command(*words, expected=0, hurry=1):
        monkeypatch.setattr(client, "_paths", {})
        counted.clear()
        with monkeypatch.context() as patch:
            clock = time.monotonic
            patch.setattr(time, "monotonic", lambda: hurry * clock())
            status, _out, err = run(*words)
        assert status == expected, (words, err)
        return len(counted.own)

    return command


class Pair:
    """An app that is installed in one of two good versions, whichever the test before left.

    ``name`` is the app's, ``installed`` the version that runs and ``other`` the other one.
    """

    def __init__(self, device, publisher, name):
        self.device, self.name, self._publisher = device, name, publisher
        self.versions = [publisher.version(name, {"db": service("db"), "web": service(number, healthcheck=WELL)},
                                           {"note": number}) for number in "12"]
        self.installed = self.other = None

    def settle(self):
        """Have a version installed and running; put right what a failed test left."""
        installed = self.device.installed(self.name)
        if installed not in self.versions or self.device.problems(self.name, installed):
            journal.remove(self.device.states, self.name)
            assert run_here(self.device, "update", self.versions[0]) == 0
            assert run_here(self.device, "run", self.name) == 0
            installed = self.versions[0]
        self.installed = installed
        self.other = next(each for each in self.versions if each != installed)
        return self

    def version(self, web, **files):
        """Publish another version, of which only the service "web" differs; return its pinned reference."""
        return self._publisher.version(self.name, {"db": service("db"), "web": web}, files)

    def note(self):
        """Return what the bundle that is unpacked says of its version."""
        return (self.device.compose_root / self.name / "note").read_text()


@pytest.fixture(scope="module")
def _pair(home, registry, request):
    name = request.module.__name__.rpartition(".")[2].replace("test_", "pair")
    return Pair(home, Publisher(registry, f"pairs{name}"), name)


@pytest.fixture
def pair(_pair, device):
    """The module's Pair."""
    return _pair.settle()
