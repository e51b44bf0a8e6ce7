# SPDX-License-Identifier: MIT
"""Images by their digests, where dockerd takes that."""

import pytest

import moby.build
from composeapps.engine.labels import FINGERPRINT, label
from composeapps.installed import install
from composeapps.space import removal
from support.device import Device, service
from support.engine import DockerDaemon

pytestmark = pytest.mark.root


HUB = ("docker.io/library/nginx", "docker.io/acme/tool", "index.docker.io/acme/other", "acme/plain")


def _runs_images_of_docker_hub(device):
    """Install, start and remove an app of images of Docker Hub, which dockerd calls by shorter names."""
    app = device.version({f"s{number}": {**service(), "image": name} for number, name in enumerate(HUB)})
    device.apply(None, app)
    assert set(device.runs()) == {"s0", "s1", "s2", "s3"}
    tags = {tag for image in device.engine.images() for tag in image.get("RepoTags") or ()}
    assert {tag.partition(":")[0] for tag in tags} >= {"nginx", "acme/tool", "acme/other", "acme/plain"}
    names = install.load_images(app, device.store, device.engine, device.notes.append)
    assert not any("loading" in note for note in device.notes[-len(names):]), "they are there"
    device.apply(app, device.version({"a": service()}))
    removed, _gone = removal.remove_app(device.name, device.store, device.states, device.config, device.engine)
    assert sorted(name.partition(":")[0] for name in removed.images if "/f/" not in name) == [
        "acme/other", "acme/plain", "acme/tool", "nginx"]


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
        _runs_images_of_docker_hub(Device(directory / "hub", daemon.host, daemon.compose_command))


def test_a_stock_dockerd_runs_images_by_their_ids(device):
    device.apply(None, device.version({"a": service()}))
    assert device.only("a")["Config"]["Image"] == device.only("a")["Image"]


def test_a_stock_dockerd_runs_images_of_docker_hub(device):
    _runs_images_of_docker_hub(device)
