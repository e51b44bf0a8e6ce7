# SPDX-License-Identifier: MIT
"""The partition table of a disk in use, on a loop device: a partition grows, and is there all the time."""

import contextlib
import socket
import subprocess
from pathlib import Path

import pytest

from composeapps.disk import table

pytestmark = pytest.mark.root
MEBIBYTE = 1 << 20
UEVENTS = 15  # NETLINK_KOBJECT_UEVENT of include/uapi/linux/netlink.h
SMALL = "label: gpt\nstart=2048, size=2048, name=boot\nstart=4096, size=8192, name=data\n"


def run(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **options).stdout


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk of 64 MiB with the table of one of 8 MiB, the copy of the table in its middle."""
    monkeypatch.setattr(table, "settle", lambda: None)
    file = tmp_path / "disk"
    with open(file, "wb") as stream:
        stream.truncate(8 * MEBIBYTE)
    run("/usr/sbin/sfdisk", "-q", file, input=SMALL)
    with open(file, "r+b") as stream:
        stream.truncate(64 * MEBIBYTE)
    device = run("/usr/sbin/losetup", "--partscan", "--find", "--show", file).strip()
    try:
        # The scan may have found the device busy; what is there already is an error here, and no matter.
        subprocess.run(["/usr/bin/partx", "--add", device], check=False, capture_output=True)
        yield table.Disk(f"/sys/class/block/{Path(device).name}")
    finally:
        run("/usr/sbin/losetup", "--detach", device)


def events(listener):
    """Return what the kernel told since: "remove@…" and so on."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listener.recv(65536).split(b"\0")[0].decode())
    return found


def test_a_partition_grows_without_going_away(disk):
    part = disk.partition("data")
    assert disk.room_behind(part)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, UEVENTS) as listener:
        listener.bind((0, 1))
        disk.grow(part)
        told = [event for event in events(listener) if part.device.name in event]
    assert [event for event in told if event.startswith(("remove@", "add@"))] == []
    grown = disk.partition("data")
    assert (grown.start, grown.number) == (part.start, part.number)
    assert grown.start + grown.size > (64 * MEBIBYTE >> 9) - table.SLACK and not disk.room_behind(grown)
    run("/usr/sbin/sfdisk", "--verify", disk.device)


def test_a_partition_that_is_not_there_is_made_out_of_the_rest(disk):
    run("/usr/sbin/sfdisk", "-q", "--delete", disk.device, "2")
    run("/usr/bin/partx", "--delete", "--nr", "2", disk.device)
    assert disk.partition("data") is None
    made = disk.append("data", table.DATA_TYPE)
    assert made == disk.partition("data") and not disk.room_behind(made)
