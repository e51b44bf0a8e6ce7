# SPDX-License-Identifier: MIT
"""Which disk a machine gets, what is mounted of it, and where the preloaded apps lie, by the features of a build."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVE = Path(__file__).with_name("drivevariables.py")
NAMES = ("COMPOSEAPPS_DISK", "WKS_FILE", "COMPOSEAPPS_FACTORY_SEED", "composeapps_mounts")


@pytest.fixture
def variables(tmp_path):
    """Return the image's variables with some settings."""
    def get(*settings):
        done = subprocess.run([sys.executable, str(DRIVE), str(tmp_path / "build"), *NAMES, "--",
                               f"IMAGE_ROOTFS={tmp_path}/root", *settings], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return get


def fstab(found, tmp_path):
    """Return {mount point: device} of the lines that the image's fstab gets."""
    path = tmp_path / "root/etc/fstab"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("/dev/root / auto defaults 1 1\n")
    subprocess.run(["sh", "-e"], input=found["composeapps_mounts"], text=True, check=True)
    lines = [line.split() for line in path.read_text().splitlines()]
    return {place: device for device, place, *_rest in lines}


@pytest.mark.parametrize("settings, disk, wks", [
    (["MACHINE_FEATURES:append= efi"], "1", "composeapps-disk.wks.in"),
    (["MACHINE_FEATURES:append= efi", "COMPOSEAPPS_DISK=0"], "0", ""),
    ([], "0", ""),
    (["COMPOSEAPPS_DISK=1"], "1", "composeapps-bsp.wks.in"),
    (["COMPOSEAPPS_DISK=1", "COMPOSEAPPS_WKS_FILE=slots.wks.in"], "1", "slots.wks.in"),
    (["MACHINE_FEATURES:append= efi", "DISTRO_FEATURES:append= sota"], "0", "")])
def test_a_machine_gets_the_disk_of_its_boot_loader(variables, settings, disk, wks):
    found = variables(*settings)
    assert (found["COMPOSEAPPS_DISK"], found["WKS_FILE"]) == (disk, wks)


def test_the_factory_store_has_a_partition_or_lies_in_the_root(variables, tmp_path):
    links = "/dev/disk/composeapps"
    shared = {"/": "/dev/root", "/var": f"{links}/data", "/boot": f"{links}/boot"}
    assert fstab(variables("COMPOSEAPPS_DISK=1"), tmp_path) == {**shared, "/factory": f"{links}/factory"}
    assert fstab(variables("COMPOSEAPPS_DISK=1", "COMPOSEAPPS_FACTORY_PARTITION=0"), tmp_path) == shared


def test_what_ostree_commits_has_no_apps(variables):
    assert variables()["COMPOSEAPPS_FACTORY_SEED"] == "/factory/reset-apps"
    assert variables("DISTRO_FEATURES:append= sota")["COMPOSEAPPS_FACTORY_SEED"] == ""


def test_an_image_without_the_layers_feature_says_what_to_add(tmp_path):
    done = subprocess.run([sys.executable, str(DRIVE), str(tmp_path / "build"), "PN", "--",
                           "DISTRO_FEATURES=systemd usrmerge virtualization"], capture_output=True, text=True,
                          check=False)
    assert done.returncode and "DISTRO_FEATURES has no 'composeapps'" in done.stderr
