# SPDX-License-Identifier: MIT
"""A store that a real dockerd made, once a session, and a copy of it for each test to damage."""

import shutil
import subprocess

import pytest

from fsck.layerstore import Layer, LayerStore, sparse_tar
from fsck.stores import Device, make_template
from support import layertars


@pytest.fixture(scope="session")
def template(device_root, tmp_path_factory):
    """The Template of all tests."""
    place = tmp_path_factory.mktemp("fsck")
    return make_template(device_root, place / "slot", place / "template")


@pytest.fixture
def device(template):
    """A Device whose data root and restorable store are intact; at the same path for each test."""
    shutil.rmtree(template.slot, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", template.saved, template.slot], check=True)
    one = Device(template)
    yield one
    one.stop()


@pytest.fixture(scope="session")
def layerstore(device_root, tmp_path_factory):
    """The LayerStore of all tests: base, upper, odd, and those that cannot be put together again; not to be changed."""
    place = tmp_path_factory.mktemp("layers")
    tars = [layertars.base_layer(), layertars.upper_layer(), layertars.odd_layer(),
            *(sparse_tar(version, place / "sparse") for version in ("0.0", "0.1", "1.0")),
            layertars.unsavable_layer()]
    return LayerStore(device_root, place / "root", tars)


@pytest.fixture
def copied(layerstore, tmp_path):
    """A function that gives a copy of a layer, by its number, to be changed at will."""
    def copy(number):
        layer = layerstore.layers[number]
        place = tmp_path / f"layer{number}"
        place.mkdir()
        subprocess.run(["cp", "-a", layer.cache, place / "cache"], check=True)
        metadata = place / "metadata"
        subprocess.run(["cp", "-a", layer.metadata, metadata], check=True)
        return Layer(layer.tar, metadata, place / "cache")

    return copy
