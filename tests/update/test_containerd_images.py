# SPDX-License-Identifier: MIT
"""A dockerd that keeps images in containerd's store, and calls them otherwise than by the digests of their configs."""

from urllib.parse import urlencode

import pytest

from support import fleet
from support.engine import DockerDaemon
from support.updating import service

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def dockerd(device_root, tmp_path_factory):
    with DockerDaemon(device_root, tmp_path_factory.mktemp("containerd"), containerd_images=True) as daemon:
        yield daemon


@pytest.fixture
def device(counted_device):
    return counted_device


def test_an_image_is_looked_at_once_and_then_known_by_its_id(device, count, counted, name):
    apps = [f"{name}x{number}" for number in range(3)]
    uris = [fleet.put(device.store, app, {"web": service(app)}) for app in apps]
    count("run", *uris)
    known = {each["RepoTags"][0]: each["Id"] for each in device.engine.images() if each.get("RepoTags")}
    assert len(set(known.values())) == 3
    started = [device.started(app) for app in apps]
    assert count("run", *uris) == count("run", "--factory", "--installed") == 3
    assert count("check") == 1 and count("ps") == count("status") == 2 and count("prune") <= 3
    assert [device.started(app) for app in apps] == started
    # A name that somebody gave to another image is that one's no longer.
    one, other = sorted(known)[:2]
    repository, _colon, tag = one.rpartition(":")
    device.engine._json("POST", f"/images/{other}/tag?{urlencode({'repo': repository, 'tag': tag})}")
    assert device.engine.image_id(one) == known[other]
    count("check", expected=3)
    count("run", *uris)
    assert {name: device.engine.image_id(name) for name in known} == known
    count("check")
