# SPDX-License-Identifier: MIT
"""A store that a real dockerd made, once a session, and a copy of it for each test to damage."""

import subprocess

import pytest

# Fixtures too, for the tests about single layers.
from fsck.layerfixtures import copied, layerstore, memory_disk  # noqa: F401
from fsck.stores import Device, make_template


@pytest.fixture(scope="session")
def template(device_root, tmp_path_factory):
    """The Template of all tests."""
    place = tmp_path_factory.mktemp("fsck")
    return make_template(device_root, place / "slot", place / "template")


@pytest.fixture
def device(template):
    """A Device whose data root and restorable store are intact; at the same path for each test, in memory."""
    template.slot.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", template.slot], check=True)
    one = Device(template)
    try:
        subprocess.run(["cp", "-a", f"{template.saved}/.", template.slot], check=True)
        yield one
    finally:
        one.stop()
        # The kernel takes the dead dockerd's namespace down in its own time.
        subprocess.run(["umount", "--lazy", template.slot], check=True)
