# SPDX-License-Identifier: MIT
"""The disk that a manufacturer writes boots by EFI, beside another disk with the same image, and grows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from demonstration import device as demo
from demonstration.disk import larger_size
from emulator import image as images
from emulator.apps import wait_for_apps
from emulator.machine import Machine

pytestmark = [pytest.mark.qemu, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

TOP = Path(__file__).resolve().parents[2]
MEBIBYTE = 1 << 20
PAGE = "http://127.0.0.1:8080/"


@pytest.fixture(scope="module")
def image():
    """The path of the description of the disk that scripts/demo builds, with the demo apps preloaded."""
    done = subprocess.run([sys.executable, TOP / "scripts" / "demo", "--disk", "--no-boot", "--json"], text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["image"]


@pytest.fixture(scope="module")
def device(image, tmp_path_factory):
    """A device after its first start; a second disk has the same image, and the network card has no cable."""
    twin = tmp_path_factory.mktemp("twin") / "twin.qcow2"
    images.make_overlay(images.ImageDescription.load(image).disk, twin)
    machine = Machine(image, name="test-disk", efi=True, disk_size=larger_size(image), network="user",
                      drives=[images.Drive(twin, "qcow2")])
    failed = True
    try:
        machine.power_on()
        machine.set_link(False)
        machine.login()
        yield machine
        failed = False
    finally:
        machine.close(failed=failed)


def mounts(device):
    found = json.loads(device.run("findmnt --json --output TARGET,SOURCE,OPTIONS,SIZE --bytes --list").stdout)
    return {each["target"]: each for each in found["filesystems"]}


def places(image):
    """Return {name: device} of the image's partitions on a device's first disk."""
    table = json.loads(Path(image).read_text())["partitions"]
    return {part["name"]: f"/dev/vda{number}" for number, part in enumerate(table, 1)}


def reach(device, partition):
    """Return the byte behind the last one of a partition."""
    start, size = (int(device.run(f"cat /sys/class/block/{Path(partition).name}/{fact}").stdout)
                   for fact in ("start", "size"))
    return (start + size) * 512


def answers(device):
    """Wait for the apps, and see that one answers."""
    wait_for_apps(device, lambda line: None)
    assert "Hello from a restorable compose app" in demo.fetch(device, PAGE)


def part(image, mountpoint, directory):
    """Return a file with the content of one partition of the image."""
    description = json.loads(Path(image).read_text())
    entry = next(each for each in description["partitions"] if each["mountpoint"] == mountpoint)
    target = directory / "partition"
    with open(Path(image).parent / description["disk"], "rb") as stream, open(target, "wb") as out:
        stream.seek(entry["start"])
        for _ in range(entry["size"] // MEBIBYTE):
            data = stream.read(MEBIBYTE)
            out.seek(MEBIBYTE, 1) if not data.strip(b"\0") else out.write(data)
        out.truncate(entry["size"])
    return target


def debugfs(file, request):
    done = subprocess.run(["debugfs", "-R", request, file], capture_output=True, text=True, check=True,
                          env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "DEBUGFS_PAGER": "cat"})
    return done.stdout


def test_the_image_has_no_identity(image, tmp_path):
    root = part(image, "/", tmp_path)
    assert debugfs(root, "cat /etc/machine-id").strip() in ("", "uninitialized")
    assert "ssh_host" not in debugfs(root, "ls -p /etc/ssh")
    assert "machine-id" not in debugfs(part(image, "/var", tmp_path), "ls -p /lib/dbus")


def test_it_boots_by_efi_from_its_own_partitions_and_fills_the_disk(device, image):
    assert device.run("test -d /sys/firmware/efi && grep -c root=PARTUUID= /proc/cmdline").stdout.strip() == "1"
    found, parts = mounts(device), places(image)
    assert [found[place]["source"] for place in ("/", "/factory", "/var")] == [
        parts[name] for name in ("root", "factory", "data")]
    assert "ro" in found["/factory"]["options"].split(",")
    # The data partition takes what the image leaves of the disk: all but the others and ext4's own tables.
    assert reach(device, parts["data"]) > larger_size(image) - 2 * MEBIBYTE
    assert int(found["/var"]["size"]) > (larger_size(image) - Path(image).with_suffix(".wic").stat().st_size) * 0.9
    assert "vdb" not in device.run("findmnt --list --noheadings --output SOURCE").stdout
    assert "bzImage" in device.run("ls /boot").stdout


def test_its_apps_run_without_a_network(device):
    assert device.run("cat /sys/class/net/e*/carrier", check=False).stdout.strip() in ("0", "")
    answers(device)
    assert device.run("systemctl is-active network-online.target", check=False).stdout.strip() != "active"
