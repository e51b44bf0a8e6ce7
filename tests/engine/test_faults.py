# SPDX-License-Identifier: MIT
"""Which failures are a version's, and which the device's."""

import os
import socket
import subprocess
import sys

import pytest

from composeapps.engine import faults
from composeapps.engine.client import Engine
from composeapps.errors import EngineError, NotFoundError, NotRunningError, RegistryError, SpaceError, StorageError


@pytest.mark.parametrize("text", [
    "app a: docker compose up failed: Error response from daemon: mkdir /var/lib/docker/overlay2/x: "
    "no space left on device",
    "dockerd at unix:///run/docker.sock cannot be reached: Connection refused; is docker.service running?",
    "app a: docker compose up failed: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
    "app a: docker compose up failed: error during connect: Get \"http://x/v1.41/info\": EOF: unexpected EOF",
    "dockerd did not load the image: write /x: disk quota exceeded",
    "Error response from daemon: dial unix /run/containerd/containerd.sock: connect: no such file or directory",
    "failed to resolve reference: lookup hub.example.com: Temporary failure in name resolution",
])
def test_what_the_device_lacks_is_no_versions_fault(text):
    assert faults.is_devices(EngineError(text))


@pytest.mark.parametrize("err", [
    EngineError("app a: docker compose up failed: invalid mount config for type bind: bind source path does not exist"),
    EngineError("Bind for 0.0.0.0:8080 failed: port is already allocated"),
    NotRunningError("app a: service web ended with status 1; its last words: no space left on device"),
    NotFoundError("blob sha256:… is not in the store"),
])
def test_what_a_version_asks_for_is_its_own(err):
    assert not faults.is_devices(err)


def test_the_file_systems_and_the_registrys_are_the_devices():
    assert all(faults.is_devices(err("x")) for err in (StorageError, SpaceError, RegistryError))


def test_another_run_of_a_dockerd_is_known(tmp_path):
    path = tmp_path / "docker.sock"
    engine = Engine(f"unix://{path}")
    assert faults.daemon(engine) is None
    script = ("import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\n"
              "print(flush=True)\nsys.stdin.read()")
    seen = []
    for _run in range(2):
        with subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as listener:
            listener.stdout.readline()
            seen += [faults.daemon(engine), faults.daemon(engine)]
            assert seen[-1][0] == listener.pid
            listener.communicate()
        path.unlink()
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_its_own_process_is_one(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert faults.daemon(Engine(f"unix://{tmp_path}/s"))[0] == os.getpid()
