# SPDX-License-Identifier: MIT
"""Fixtures of the tests about single layers: real ones, and copies of them to damage."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from fsck.layerstore import LayerStore, sparse_tar
from support import layertars


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
        # Lazily: a test that failed may have left a descriptor open.
        subprocess.run(["umount", "--lazy", place], check=True)
    finally:
        image.unlink(missing_ok=True)


@pytest.fixture
def copied(layerstore, memory_disk):
    """A function that gives a copy of a layer, by its number, to be changed at will."""
    with tempfile.TemporaryDirectory(dir=memory_disk) as place:
        def copy(number):
            return layerstore.layers[number].copy(Path(tempfile.mkdtemp(dir=place)))

        yield copy
