# SPDX-License-Identifier: MIT
"""Images by their digests, where dockerd takes that."""

import pytest

import moby.build
from composeapps.engine.labels import FINGERPRINT, label
from support.device import Device, service
from support.engine import DockerDaemon

pytestmark = pytest.mark.root


def test_a_patched_dockerd_runs_images_by_digest(device_root, tmp_path_factory):
    directory = tmp_path_factory.mktemp("patched")
    with DockerDaemon(device_root, directory, moby.build.patched() / "dockerd",
                      {"DOCKER_LOAD_ROOTS": str(directory)}) as daemon:
        device = Device(directory / "device", daemon.host, daemon.compose_command)
        old = device.version({"a": service()})
        device.apply(None, old)
        assert device.only("a")["Config"]["Image"] == device.image("base")
        # A stock dockerd knew the same image by its ID: its container is no other.
        before = device.runs()
        images = {name: device.engine.image(name)["Id"] for name in old.images}
        device.apply(old, device.version({"a": service(), "b": service()}))
        assert device.runs()["a"] == before["a"] and images
        assert label(device.only("b"), FINGERPRINT)


def test_a_stock_dockerd_runs_images_by_their_ids(device):
    device.apply(None, device.version({"a": service()}))
    assert device.only("a")["Config"]["Image"] == device.only("a")["Image"]
