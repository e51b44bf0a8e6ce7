# SPDX-License-Identifier: MIT
"""The disk that a manufacturer writes boots by EFI, beside another disk with the same image, grows, and is reset."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from emulator import image as images
from emulator.machine import Machine

pytestmark = [pytest.mark.qemu, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

TOP = Path(__file__).resolve().parents[2]
GIBIBYTE = 1 << 30
SIZE = 4 * GIBIBYTE


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The description of an image without apps, its disk with partitions."""
    done = subprocess.run([sys.executable, TOP / "scripts" / "build-image", "--disk", "--preload", "", "--json",
                           "--set", "IMAGE_NAME=composeapps-disk-test"], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["image"]


@pytest.fixture(scope="module")
def device(image, tmp_path_factory):
    """The device after its first start; a second disk has the same image, so the same labels and identifiers."""
    twin = tmp_path_factory.mktemp("twin") / "twin.qcow2"
    images.make_overlay(images.ImageDescription.load(image).disk, twin)
    machine = Machine(image, name="test-disk", efi=True, disk_size=SIZE, drives=[images.Drive(twin, "qcow2")])
    failed = True
    try:
        machine.start()
        yield machine
        failed = False
    finally:
        machine.close(failed=failed)


def mounts(device):
    found = json.loads(device.run("findmnt --json --output TARGET,SOURCE,OPTIONS,SIZE --bytes --list").stdout)
    return {each["target"]: each for each in found["filesystems"]}


def test_it_boots_by_efi_from_its_own_partitions_and_fills_the_disk(device):
    assert device.run("test -d /sys/firmware/efi && grep -c root=PARTUUID= /proc/cmdline").stdout.strip() == "1"
    found = mounts(device)
    assert [found[place]["source"] for place in ("/", "/factory", "/var")] == ["/dev/vda2", "/dev/vda3", "/dev/vda4"]
    assert "ro" in found["/factory"]["options"].split(",")
    # The data partition takes what the image leaves of the disk: all but the others and ext4's own tables.
    size = int(device.run("cat /sys/class/block/vda4/size").stdout) * 512
    start = int(device.run("cat /sys/class/block/vda4/start").stdout) * 512
    assert start + size > SIZE - 2 * (1 << 20)
    assert int(found["/var"]["size"]) > size * 0.9
    assert "vdb" not in device.run("findmnt --list --noheadings --output SOURCE").stdout
    assert "bzImage" in device.run("ls /boot").stdout


def test_what_looks_at_each_start_finds_nothing_to_do_then(device):
    device.run("systemctl is-active composeapps-data.service")
    said = device.run("journalctl --boot --unit composeapps-data.service --output cat").stdout
    assert "has" in said and "MiB now" in said and "file system" not in said
    # The same look again: it would start Python only for something to do.
    assert device.run("sh -x /usr/libexec/composeapps-data 2>&1 | grep -c python3", check=False).stdout.strip() == "0"


def test_a_reset_keeps_nothing_even_when_superblock_and_factory_store_are_gone(device):
    before = device.run("cat /etc/machine-id").stdout
    device.run("echo mine > /var/mine")
    refused = device.run("composeapps factory-reset --yes --no-reboot", check=False, timeout=120)
    assert refused.exit_status and "no preloaded apps" in refused.stdout
    device.run("composeapps factory-reset --yes --no-reboot --force", timeout=120)
    device.run("dd if=/dev/urandom of=/dev/vda3 bs=64k count=4 conv=fsync; "
               "dd if=/dev/zero of=/dev/vda4 bs=4k count=1 conv=fsync; sync", timeout=120)
    device.power_cut()
    device.start()
    assert device.run("test -e /var/mine", check=False).exit_status
    assert device.run("cat /etc/machine-id").stdout != before
    state = json.loads(device.run("composeapps status --json", check=False, timeout=60).stdout)
    assert state["factory_reset"]["kept"] == "nothing" and state["factory_reset"]["lost"] == ""
    found = mounts(device)
    assert found["/var"]["source"] == "/dev/vda4" and "/factory" not in found
    assert "composeapps-reset.json" not in device.run("ls /boot").stdout
    assert device.run("systemctl is-active docker.service", check=False).stdout.strip() == "active"
