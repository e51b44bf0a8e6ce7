# SPDX-License-Identifier: MIT
"""The data partition's file system, on files in place of it: found, got back, made, and never made over data."""

import os
import subprocess

import pytest

from composeapps.disk import filesystem, prepare
from composeapps.errors import StorageError

pytestmark = pytest.mark.root
MEBIBYTE = 1 << 20


@pytest.fixture
def device(tmp_path):
    """An empty partition of 300 MiB: large enough for copies of a superblock in two groups of 4 KiB blocks."""
    path = tmp_path / "partition"
    with open(path, "wb") as stream:
        stream.truncate(300 * MEBIBYTE)
    return path


@pytest.fixture
def skeleton(tmp_path):
    tree = tmp_path / "skeleton"
    (tree / "lib/private").mkdir(parents=True)
    (tree / "lib/private/file").write_text("kept")
    os.chmod(tree / "lib/private", 0o700)
    return tree


def run(*words, good=(0,)):
    env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "DEBUGFS_PAGER": "cat"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, env=env)
    assert done.returncode in good, (words, done.stdout, done.stderr)
    return done.stdout


def overwrite(device, offset, size):
    with open(device, "r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xa5" * size)


def ensure(device, skeleton):
    said = []
    prepare._file_system(device, said.append, skeleton)
    run("e2fsck", "-fn", device)
    return said


def content(device):
    return run("debugfs", "-R", "cat /lib/private/file", device)


def test_an_empty_partition_gets_a_file_system_with_the_skeleton(device, skeleton):
    assert filesystem.label(device) is None and not filesystem.ready(device)
    said = ensure(device, skeleton)
    assert len(said) == 1 and "no file system" in said[0]
    assert filesystem.label(device) == "data" and filesystem.ready(device)
    assert content(device) == "kept"
    assert "Mode:  0700" in run("debugfs", "-R", "stat /lib/private", device)


@pytest.mark.parametrize("size", [4096, 64 * 1024])
def test_what_a_copy_of_the_superblock_gives_back_is_not_made_anew(device, skeleton, tmp_path, size):
    ensure(device, skeleton)
    (tmp_path / "mine").write_text("a photograph")
    run("debugfs", "-w", "-R", f"write {tmp_path}/mine photograph", device)
    overwrite(device, 0, size)
    assert filesystem.label(device) is None
    said = ensure(device, skeleton)
    assert "is repaired" in said[-1]
    found = run("debugfs", "-R", "ls -p /", device)
    # A root directory that was overwritten, too, has its files in lost+found.
    assert "photograph" in found or "a photograph" in run(
        "sh", "-c", f"for i in $(debugfs -R 'ls -p /lost+found' {device} 2>/dev/null | cut -d/ -f2); do "
        f"debugfs -R \"cat <$i>\" {device} 2>/dev/null; done", good=range(256))


def test_one_that_cannot_be_repaired_is_not_made_anew(device, skeleton, monkeypatch):
    ensure(device, skeleton)
    overwrite(device, 0, 4096)
    before, real = device.read_bytes(), filesystem.run

    def failing(*words, **options):
        return (8, "Input/output error") if words[0] == "e2fsck" else real(*words, **options)

    monkeypatch.setattr(filesystem, "run", failing)
    with pytest.raises(StorageError, match="left alone"):
        prepare._file_system(device, lambda text: None, skeleton)
    assert device.read_bytes() == before


def test_one_whose_making_was_cut_off_is_made_again(device, skeleton, monkeypatch):
    real = filesystem.run

    def until_named(*words, **options):
        if words[0] == "tune2fs":
            raise StorageError("the power went")
        return real(*words, **options)

    monkeypatch.setattr(filesystem, "run", until_named)
    with pytest.raises(StorageError):
        filesystem.make(device, skeleton)
    monkeypatch.undo()
    assert filesystem.label(device) == filesystem.UNFINISHED and not filesystem.ready(device)
    ensure(device, skeleton)
    assert filesystem.ready(device) and content(device) == "kept"


def test_one_whose_making_was_cut_off_before_its_superblock_is_made_again(device, skeleton):
    filesystem.make(device, skeleton)
    run("tune2fs", "-L", filesystem.UNFINISHED, device)
    overwrite(device, 0, 4096)
    said = ensure(device, skeleton)
    assert "repair" not in " ".join(said) and content(device) == "kept"


@pytest.mark.parametrize("maker, name", [(("mkfs.vfat",), "vfat"), (("mkswap",), "swap")])
def test_what_something_else_has_there_is_left_alone(device, skeleton, maker, name):
    run(*maker, device)
    before = device.read_bytes()
    with pytest.raises(StorageError, match=name):
        prepare._file_system(device, lambda text: None, skeleton)
    assert device.read_bytes() == before


def test_a_sound_one_is_not_touched(device, skeleton):
    ensure(device, skeleton)
    before = device.read_bytes()
    assert filesystem.ready(device)
    assert device.read_bytes() == before
