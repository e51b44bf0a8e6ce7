# SPDX-License-Identifier: MIT
"""What all devices of an image share tells no two of them apart: no keys, no machine-id."""

import re

import pytest

pytestmark = pytest.mark.root
PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def test_the_base_of_all_images_has_no_key_and_no_identity(device_root):
    machine = device_root / "etc/machine-id"
    assert not machine.exists() or machine.read_text().strip() in ("", "uninitialized")
    other = device_root / "var/lib/dbus/machine-id"
    assert other.is_symlink() or not other.exists()
    assert not list(device_root.glob("etc/ssh/ssh_host_*"))
    assert not list(device_root.glob("var/lib/systemd/random-seed"))
    looked, found = 0, []
    for place in ("etc", "root", "var", "home", "usr/share", "usr/lib/ssl", "opt", "srv"):
        for path in (device_root / place).rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
                looked += 1
                if PRIVATE.search(path.read_bytes()):
                    found.append(path)
    assert looked > 100 and not found
