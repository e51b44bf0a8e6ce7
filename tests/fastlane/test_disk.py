# SPDX-License-Identifier: MIT
"""The disk with partitions: what the layer's kickstart file says, made without mounting, the same bytes each time."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from composeapps.disk import filesystem
from fastlane import wks
from fastlane.errors import BuildError

pytestmark = pytest.mark.root

DRIVE = Path(__file__).with_name("drivedisk.py")
MEBIBYTE = 1 << 20
# Little free space, so that a disk is small.
SMALL = ("COMPOSEAPPS_ROOT_SPACE=8192", "COMPOSEAPPS_DATA_SPACE=16384")


@pytest.fixture
def base(tmp_path):
    """What stands for a base: files with contents to be found again."""
    directory = tmp_path / "base"
    loader = directory / "tree/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    loader.parent.mkdir(parents=True)
    loader.write_bytes(b"loader")
    (directory / "vmlinuz").write_bytes(b"kernel" * 1000)
    (directory / "initrd.img").write_bytes(b"initrd")
    return directory


@pytest.fixture
def root(tmp_path):
    """A root file system with a file of its own for each partition."""
    tree = tmp_path / "root"
    for path in ("boot/never", "factory/reset-apps/blob", "var/lib/kept", "etc/fstab", 'usr/share/a "b"/c'):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)
    (tree / "etc/link").symlink_to("fstab")
    os.chown(tree / "etc/fstab", 12, 34)
    os.chmod(tree / "etc/fstab", 0o640)
    return tree


def fill(tree, size, largest):
    """Fill a directory with files of all sizes up to the largest, together ``size`` bytes; the same each time."""
    tree.mkdir(parents=True, exist_ok=True)
    chance, number = random.Random(size), 0
    while size > 0:
        part = min(size, chance.choice((1, 600, 5000, largest)))
        (tree / f"{number:064x}").write_bytes(chance.randbytes(part))
        size, number = size - part, number + 1


def make(tmp_path, base, root, name="disk", *settings):
    target = tmp_path / name
    done = subprocess.run([sys.executable, str(DRIVE), str(tmp_path / "build"), str(base), str(root), str(target),
                           *SMALL, *settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target, json.loads(done.stdout)


def part(target, made, mountpoint):
    """Return a file with the content of one partition."""
    entry = next(each for each in made["partitions"] if each["mountpoint"] == mountpoint)
    file = target.with_name(f"{target.name}.part")
    with open(target, "rb") as stream, open(file, "wb") as out:
        stream.seek(entry["start"])
        out.write(stream.read(entry["size"]))
    return file


def run(*words):
    env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "DEBUGFS_PAGER": "cat"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def test_each_partition_has_what_the_kickstart_file_gives_it(tmp_path, base, root):
    target, made = make(tmp_path, base, root)
    table = json.loads(run("sfdisk", "-J", target))["partitiontable"]
    assert table["label"] == "gpt"
    said = wks.read(made["wks"], "the layer's")
    # What makes the data partition's file system anew makes the same one.
    assert said.partitions[-1].mkfs_extraopts.split() == list(filesystem.OPTIONS)
    assert [(each["name"], each["type"].lower(), each["uuid"].lower()) for each in table["partitions"]] == [
        (each.part_name, each.part_type or "0fc63daf-8483-4772-8e79-3d69d8477de4", each.uuid)
        for each in said.partitions]
    assert table["id"].lower() == said.disk_id
    assert all(each["start"] * 512 % MEBIBYTE == 0 for each in table["partitions"])
    run("sfdisk", "--verify", target)

    listed = {place: run("debugfs", "-R", "ls -p /", part(target, made, place)) for place in ("/", "/factory", "/var")}
    assert "/etc/" in listed["/"] and "/reset-apps/" in listed["/factory"] and "/lib/" in listed["/var"]
    assert "/never/" not in run("debugfs", "-R", "ls -p /boot", part(target, made, "/"))
    assert "/lib/" not in run("debugfs", "-R", "ls -p /var", part(target, made, "/"))
    stat = run("debugfs", "-R", "stat /etc/fstab", part(target, made, "/"))
    assert "User:    12   Group:    34" in stat and "Mode:  0640" in stat

    boot = part(target, made, "/boot")
    entry = run("mtype", "-i", boot, "::loader/entries/boot.conf")
    root_part = next(each for each in said.partitions if each.mountpoint == "/")
    assert f"root=PARTUUID={root_part.uuid}" in entry and "linux /bzImage" in entry
    assert run("mtype", "-i", boot, "::EFI/BOOT/bootx64.efi") == "loader"
    assert run("mtype", "-i", boot, "::bzImage") == "kernel" * 1000


def test_the_provisioning_area_is_empty_and_is_flashed(tmp_path, base, root):
    target, made = make(tmp_path, base, root)
    place = next(each for each in made["partitions"] if each["name"] == "provision")
    with open(target, "rb") as stream:
        # What a map of the disk's blocks leaves out stays on the device as it was before.
        assert os.lseek(stream.fileno(), place["start"], os.SEEK_DATA) == place["start"]
        assert os.lseek(stream.fileno(), place["start"], os.SEEK_HOLE) >= place["start"] + place["size"]
        stream.seek(place["start"])
        assert not stream.read(place["size"]).strip(b"\0")


@pytest.mark.parametrize("size, largest", [(1, 5000), (1, MEBIBYTE), (40, 12 * MEBIBYTE), (40, 70_000)])
def test_a_factory_store_of_any_size_fits(tmp_path, base, root, size, largest):
    fill(root / "factory/reset-apps/blobs", size * MEBIBYTE, largest)
    target, made = make(tmp_path, base, root)
    for place in ("/", "/factory", "/var"):
        run("e2fsck", "-fn", part(target, made, place))
    entry = next(each for each in made["partitions"] if each["mountpoint"] == "/factory")
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in (root / "factory").rglob("*") if path.is_file())
    assert entry["size"] < used * 1.1 + 4 * MEBIBYTE
    names = run("debugfs", "-R", "ls -p /reset-apps/blobs", part(target, made, "/factory"))
    assert names.count("\n/") + names.startswith("/") >= len(list((root / "factory/reset-apps/blobs").iterdir()))


def test_the_same_inputs_give_the_same_disk_whenever_it_is_made(tmp_path, base, root):
    fill(root / "factory/reset-apps/blobs", MEBIBYTE, 70_000)
    first, _ = make(tmp_path, base, root, "first")
    # Later, and laid out anew.
    copy = tmp_path / "copy"
    run("cp", "-a", root, copy)
    for path in copy.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (path.stat().st_atime + 1000, path.stat().st_mtime + 1000))
    second, _ = make(tmp_path, base, copy, "second")
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    third, made = make(tmp_path, base, root, "third", "COMPOSEAPPS_DISK_ID=another")
    assert not {each["uuid"] for each in made["partitions"]} & {
        each["uuid"].lower() for each in json.loads(run("sfdisk", "-J", first))["partitiontable"]["partitions"]}


@pytest.mark.parametrize("line, said", [
    ("part /x --no-fstab-update --fstype=btrfs --source rootfs", "btrfs"),
    ("part /x --no-fstab-update --ondisk sda", "--ondisk"),
    ("part /x --source rootfs", "--no-fstab-update"),
    ("part /x --no-fstab-update --size lots", "'lots'"),
    ("include common.wks", "include"),
    ("part /x --no-fstab-update --exclude-path a/ --exclude-path b/", "twice"),
    ('part "/x', "quotation"),
])
def test_a_line_that_only_wic_understands_is_refused(line, said):
    with pytest.raises(BuildError, match=said) as caught:
        wks.read(f"# one\n\n{line}\n", "product.wks")
    assert "product.wks:3" in str(caught.value)
