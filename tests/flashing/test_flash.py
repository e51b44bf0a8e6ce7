# SPDX-License-Identifier: MIT
"""scripts/flash: the disk has the image, what must not be overwritten is not, what cannot be read back is told."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from composeapps.disk import area
from composeapps.errors import UsageError
from fastlane import release
from flashing import blockmap, command
from flashing import disk as disks
from provisioning import target

pytestmark = pytest.mark.root
MEBIBYTE = 1 << 20


def run(*words):
    env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, env=env).stdout


@pytest.fixture
def flash(capsys):
    """A function that runs the command without a question; returns (exit status, standard output, standard error)."""
    def flash(*words):
        status = command.main([*map(str, words), "--yes"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return flash


def ranges(image):
    return blockmap.read(f"{image}.bmap").ranges


def has(device, image):
    """Tell whether a disk has the used blocks of an image, and nothing else was written."""
    data, whole = Path(device).read_bytes(), image.read_bytes()
    expected = bytearray(b"\xa5" * len(data))
    for start, length, _digest in ranges(image):
        expected[start:start + length] = whole[start:start + length]
    return data == expected


@pytest.mark.parametrize("compressed", [False, True])
def test_the_disk_has_the_image_and_only_used_blocks_are_written(flash, image, disk, compressed):
    given = image
    if compressed:
        run("zstd", "-q", image)
        given = f"{image}.zst"
    device = disk()
    status, out, err = flash(given, device, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["verified"] and found["size"] == 64 * MEBIBYTE and 9 * MEBIBYTE < found["written"] < 11 * MEBIBYTE
    assert found["mb_per_second"] > 0 and found["verify_mb_per_second"] > 0
    assert has(device, image)


def test_a_map_that_is_missing_is_made_but_not_of_what_is_compressed(flash, image, disk):
    device = disk()
    run("zstd", "-q", image)
    os.rename(f"{image}.bmap", f"{image}.kept")
    status, _out, err = flash(f"{image}.zst", device)
    assert status == 2 and ".bmap" in err
    assert flash(image, device)[0] == 0
    os.rename(f"{image}.kept", f"{image}.bmap")
    assert has(device, image)


def test_a_disk_that_somebody_uses_is_refused(image, disk, tmp_path):
    device = disk()
    subprocess.run(["sfdisk", "-q", "--no-reread", device], input=b"label: gpt\nsize=65536\n", check=True)
    run("partx", "-u", device)
    part = f"{device}p1"
    with pytest.raises(UsageError, match=f"is a partition: .*{device}"):
        disks.look(part)
    run("mkfs.ext4", "-q", part)
    run("mount", part, "/mnt")
    try:
        with pytest.raises(UsageError, match="mounted at /mnt"):
            disks.look(device)
    finally:
        run("umount", "/mnt")
    run("mkswap", part)
    run("swapon", part)
    try:
        with pytest.raises(UsageError, match="is swap"):
            disks.look(device)
    finally:
        run("swapoff", part)
    assert disks.look(device) == 96 * MEBIBYTE


def test_the_systems_disk_is_refused(flash, image):
    number = os.stat("/").st_dev
    sysfs = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not os.path.exists(sysfs):
        pytest.fail("the root of this machine is on no disk: run this test where it is")
    name = os.path.basename(os.path.dirname(sysfs) if os.path.exists(f"{sysfs}/partition") else sysfs)
    with pytest.raises(UsageError, match="in use"):
        disks.look(f"/dev/{name}")
    status, _out, err = flash(image, f"/dev/{name}")
    assert status == 2 and "in use" in err


def test_what_is_no_disk_or_too_small_is_refused(flash, image, disk, tmp_path):
    small, locked = disk(32), disk(80, "--read-only")
    before = Path(small).read_bytes()
    for device, said in ((small, "larger disk"), (locked, "read-only"), (tmp_path / "file", "No such file"),
                         (image, "no disk"), ("/dev/null", "no disk")):
        status, _out, err = flash(image, device)
        assert status == 2 and said in err and err.count("\n") == 1
    assert Path(small).read_bytes() == before
    assert flash(tmp_path / "none.wic", small)[0] == 2


def test_nobody_is_asked_where_nobody_can_be(image, disk, capsys, monkeypatch):
    device = disk()
    with open(os.devnull) as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert command.main([str(image), device]) == 2
    assert "--yes" in capsys.readouterr().err and not has(device, image)


@pytest.mark.parametrize("place", [0, 20 * MEBIBYTE, 40 * MEBIBYTE + 5000])
def test_a_disk_that_gives_back_something_else_is_told(flash, image, disk, monkeypatch, place):
    device, real = disk(), command._copy

    def faulty(*words):
        real(*words)
        with open(device, "r+b") as stream:
            stream.seek(place)
            byte = stream.read(1)
            stream.seek(place)
            stream.write(bytes([byte[0] ^ 1]))

    monkeypatch.setattr(command, "_copy", faulty)
    status, _out, err = flash(image, device)
    assert status == 4 and "faulty" in err


def test_an_image_that_is_damaged_is_not_taken_for_whole(flash, image, disk):
    with open(image, "r+b") as stream:
        stream.seek(20 * MEBIBYTE)
        stream.write(b"damage")
    status, _out, err = flash(image, disk())
    assert status == 1 and "checksum" in err.lower() and err.count("\n") == 1


@pytest.mark.parametrize("compressed", [True, False])
def test_an_image_that_ends_too_early_is_told(flash, image, disk, compressed):
    if compressed:
        run("zstd", "-q", image)
    path = image.with_name("shop.wic.zst") if compressed else image
    os.truncate(path, path.stat().st_size // 2)
    status, _out, err = flash(path, disk())
    assert status == 1 and err.count("\n") == 1 and "\x1b" not in err


def test_a_map_that_names_no_block_is_none(flash, image, disk):
    path, device = image.with_name("shop.wic.bmap"), disk()
    path.write_text(re.sub("<Range.*?</Range>", "", path.read_text()))
    assert flash(image, device)[0] == 4 and Path(device).read_bytes()[:4] == b"\xa5" * 4


@pytest.mark.parametrize("text, said", [
    ("[" * 200_000, "no manifest"), ("{}", "no manifest"), ('{"files": {"x": 1}}', "no manifest"), ("", "no manifest"),
    ('{"format": 2, "files": {}}', "has format 2"), ('{"format": 1, "files": {}}', "not the file"),
    (None, "cannot be read"),
])
def test_a_manifest_that_is_none_is_told_before_anything_is_written(flash, image, disk, tmp_path, text, said):
    manifest, device = tmp_path / "shop.release.json", disk()
    if text is not None:
        manifest.write_text(text)
    (tmp_path / "signers").touch()
    for more in ((), ("--signers", tmp_path / "signers", "--signer", "me")):
        status, _out, err = flash(image, device, "--release", manifest, *more)
        assert status == 4 and err.count("\n") == 1 and "nothing is written" in err and (more or said in err)
    assert Path(device).read_bytes()[:4] == b"\xa5" * 4


@pytest.mark.parametrize("option", ["--area", "--bmap", "--release"])
def test_a_pipe_in_place_of_a_file_is_waited_for_by_nobody(flash, image, disk, tmp_path, option):
    os.mkfifo(tmp_path / "pipe")
    status, _out, err = flash(image, disk(), option, tmp_path / "pipe")
    assert status in (2, 4) and "not a regular file" in err


def test_one_at_a_time_writes_to_a_disk(flash, image, disk):
    device = disk()
    other = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        status, _out, err = flash(image, device)
    finally:
        os.close(other)
    assert status == 1 and "exclusive" in err and Path(device).read_bytes()[:4] == b"\xa5" * 4


@pytest.mark.parametrize("change", [("sha256", "md5"), ("<ImageSize>", "<Other>"), ("0-", "5-"),
                                    ("?>", "?><!DOCTYPE x>"), (' chksum="', ' chksum="x')])
def test_a_map_that_is_none_is_refused_before_anything_is_written(flash, image, disk, change):
    path = image.with_name("shop.wic.bmap")
    path.write_text(path.read_text().replace(*change))
    device = disk()
    status, _out, err = flash(image, device)
    assert status == 4 and "bmaptool create" in err or change[0] == "0-" and status == 1
    assert Path(device).read_bytes()[:4] == b"\xa5" * 4


def test_a_disk_gets_its_identity_in_the_same_step(flash, image, disk, tmp_path):
    device, file = disk(), tmp_path / "shop-1.area"
    file.write_bytes(area.pack(area.Provision(device="shop-1", new_key=True)))
    status, out, _err = flash(image, device, "--area", file, "--json")
    assert status == 0 and json.loads(out)["provisioned"] == "shop-1"
    assert target.held(device, target.find(device)).device == "shop-1"
    file.write_bytes(b"no area")
    assert flash(image, device, "--area", file)[0] == 4


def test_only_a_signed_release_is_written_where_that_is_asked_for(flash, image, disk, tmp_path):
    (tmp_path / "shop.json").write_text(json.dumps({"machine": "m", "disk": "shop.wic", "apps": {}, "contents": {}}))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "signers").write_text(f"me {(tmp_path / 'key.pub').read_text()}")
    manifest = release.make(tmp_path / "shop.json", {}, tmp_path / "key")
    device = disk()
    words = (f"{image}.zst", device, "--release", manifest, "--signers", tmp_path / "signers", "--signer")
    status, _out, err = flash(*words, "you")
    assert status == 4 and "nothing is written" in err and Path(device).read_bytes()[:4] == b"\xa5" * 4
    assert flash(*words, "me")[0] == 0 and has(device, image)
    with open(f"{image}.bmap", "a") as stream:
        stream.write("\n")
    assert flash(*words, "me")[0] == 4
