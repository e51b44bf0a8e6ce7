# SPDX-License-Identifier: MIT
"""A store that a real dockerd made, once a session, and a copy of it for each test to damage."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from fsck.layerstore import LayerStore, sparse_tar
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


@pytest.fixture(scope="session")
def memory_disk(tmp_path_factory):
    """A file system like a device's, in memory: what is synced there does not wait for what others write."""
    image = Path("/dev/shm") / f"fsck-tests-{os.getpid()}.img"
    place = tmp_path_factory.mktemp("disk")
    try:
        with open(image, "wb") as stream:
            stream.truncate(512 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        yield place
        subprocess.run(["umount", place], check=True)
    finally:
        image.unlink(missing_ok=True)


@pytest.fixture
def copied(layerstore, memory_disk):
    """A function that gives a copy of a layer, by its number, to be changed at will."""
    with tempfile.TemporaryDirectory(dir=memory_disk) as place:
        def copy(number):
            return layerstore.layers[number].copy(Path(tempfile.mkdtemp(dir=place)))

        yield copy
