# SPDX-License-Identifier: MIT
"""A repair that is cut off at any change is finished by the next run, with the same end."""

import os
import shutil
import subprocess

import pytest

from fsck import trials
from fsck.stores import fingerprint

pytestmark = pytest.mark.root

# The agent's own notes have inode numbers; what was set aside may be spread over two runs.
OWN = ("composeapps-fsck", "lost+fsck")


def _heal(device):
    """What the store can give back."""
    os.truncate(device.cache("base", "middle") / "diff/opt/full/new", 0)
    (device.cache("base") / "diff/bin/busybox").unlink()
    os.truncate(device.cache("base") / "link", 0)
    os.truncate(device.layer("base", "middle", "top-one") / "diff", 0)
    os.truncate(device.config("two"), 0)
    os.truncate(device.root / "image/overlay2/repositories.json", 0)
    for name in ("mount-id", "parent"):
        os.truncate(device.mount("app-two") / name, 0)


def _remove(device):
    """What nothing can give back, and what is left of others."""
    shutil.rmtree(device.cache("other"))
    os.truncate(device.cache("base", "middle", "top-two") / "diff/etc/two", 3)
    os.truncate(device.root / "volumes/metadata.db", 5000)
    shutil.rmtree(device.container("app-one"))
    (device.layerdb / "tmp/write-set-1").mkdir(parents=True)


@pytest.mark.parametrize("hurt, store", [(_heal, True), (_remove, False)], ids=["healed", "removed"])
def test_killed_at_any_change(device, hurt, store):
    hurt(device)
    damaged = device.root.parent / "damaged"
    os.rename(device.root, damaged)
    home = device.store if store else None

    def fresh():
        shutil.rmtree(device.root, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", damaged, device.root], check=True)

    fresh()
    status, report, changes = trials.run(device.root, home)
    assert status == 10 and changes > 20, report
    wanted, aside = fingerprint(device.root, OWN), set(device.aside())
    # Of many places a sample, the same each time.
    for place in range(1, changes + 1, 1 + changes // 40):
        fresh()
        assert trials.run(device.root, home, kill_at=place)[0] == trials.KILLED
        status, report, _ = trials.run(device.root, home)
        assert status in (0, 10), (place, report)
        assert fingerprint(device.root, OWN) == wanted, place
        # Nothing that would have been set aside is lost.
        files = {path for path in aside if path.endswith(("/srv/own", "hostconfig.json", ".db"))}
        assert files <= set(device.aside()), place
        assert trials.run(device.root, home)[0] == 0
