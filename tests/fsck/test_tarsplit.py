# SPDX-License-Identifier: MIT
"""Reading tar-split, and telling a layer that is whole from one that is not."""

import base64
import gzip
import io
import json
import os
import shutil
import stat
import tarfile
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from composeapps.dockerstore import layercheck, tarsplit
from composeapps.dockerstore.crc64 import Crc64
from composeapps.errors import ComposeAppsError
from composeapps.tarheader import HeaderError, read_header
from support import layertars

pytestmark = pytest.mark.root

BASE, UPPER, ODD, SPARSE_00, SPARSE_01, SPARSE_10, TWICE = range(7)
WHOLE = [BASE, UPPER, ODD]
ALL = [*WHOLE, SPARSE_00, SPARSE_01, SPARSE_10, TWICE]
PLAIN = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)


@pytest.mark.parametrize("number", WHOLE)
def test_a_layer_is_put_together_from_what_dockerd_wrote(layerstore, number):
    layer = layerstore.layers[number]
    assert tarsplit.diff_id(layer.tar_split, layer.diff) == layer.diff_id


@pytest.mark.parametrize("number", ALL)
def test_nothing_is_wrong_with_what_dockerd_wrote(layerstore, number):
    layer = layerstore.layers[number]
    assert layercheck.stat_problems(layer.tar_split, layer.diff) == []
    assert layercheck.bad_files(layer.tar_split, layer.diff) == []
    assert layercheck.content_problem(layer.tar_split, layer.diff, layer.diff_id) is None
    assert layercheck.extra_files(layer.tar_split, layer.diff) == []


@pytest.mark.parametrize("number", [BASE, UPPER, ODD, SPARSE_10])
def test_entries_are_those_of_the_tar(layerstore, number):
    layer = layerstore.layers[number]
    with tarfile.open(fileobj=io.BytesIO(layer.tar), errors="surrogateescape") as tar:
        wanted = [(member.name.encode("utf-8", "surrogateescape"), member.size, member.mode, member.uid, member.gid,
                   member.linkname.encode(), member.devmajor, member.devminor, int(member.mtime * 4),
                   {key.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape")
                    for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")})
                  for member in tar]
    headers = [entry.header for entry in tarsplit.entries(layer.tar_split) if entry.header.type != b"g"]
    assert [(one.name.rstrip(b"/"), one.size, one.mode, one.uid, one.gid, one.link, one.major, one.minor,
             one.mtime // 250_000_000, {name.decode(): value for name, value in one.xattrs.items()})
            for one in headers] == wanted


@pytest.mark.parametrize("number", [BASE, ODD, SPARSE_01])
def test_the_checksum_is_the_one_dockerd_wrote(layerstore, number):
    layer = layerstore.layers[number]
    wanted, found = [], []
    for entry in tarsplit.entries(layer.tar_split):
        if entry.crc is not None:
            path = layercheck.target(entry.header)[0].decode("utf-8", "surrogateescape")
            checksum = Crc64()
            checksum.update((layer.diff / path).read_bytes())
            found.append(checksum.digest())
            wanted.append(entry.crc)
    assert found == wanted and wanted


def test_the_checksum_of_the_catalogue():
    checksum = Crc64()
    checksum.update(b"123456789")
    # CRC-64/GO-ISO in the catalogue of parametrised CRC algorithms.
    assert checksum.digest().hex() == "b90956c775a41001"


@PLAIN
@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_the_checksum_does_not_depend_on_the_pieces(data, at):
    table = []
    for number in range(256):
        for _bit in range(8):
            number = number >> 1 ^ (0xD800000000000000 if number & 1 else 0)
        table.append(number)
    wanted = (1 << 64) - 1
    for byte in data:
        wanted = table[(wanted ^ byte) & 255] ^ wanted >> 8
    checksum = Crc64()
    checksum.update(data[:at])
    checksum.update(data[at:])
    assert checksum.digest() == (wanted ^ (1 << 64) - 1).to_bytes(8, "big")


def _replace(path, make):
    path.unlink()
    make(path)


DAMAGES = {
    "empty": (BASE, "bin/tool", lambda path: os.truncate(path, 0), "size"),
    "short": (BASE, "bin/raw", lambda path: os.truncate(path, 4096), "size"),
    "missing": (BASE, "etc/text", lambda path: path.unlink(), "missing"),
    "long-name": (BASE, layertars.LONG, lambda path: path.unlink(), "missing"),
    "not-utf8": (BASE, "umlaut/\udcfc\udcff", lambda path: os.truncate(path, 0), "size"),
    "empty-file": (BASE, "etc/empty", lambda path: path.unlink(), "missing"),
    "directory": (BASE, "tmp", lambda path: path.rmdir(), "missing"),
    "setuid": (BASE, "bin/tool", lambda path: path.chmod(0o755), "mode"),
    "sticky": (BASE, "tmp", lambda path: path.chmod(0o755), "mode"),
    "owner": (BASE, "etc/text", lambda path: os.chown(path, 0, 0), "owner"),
    "large-owner": (BASE, "far", lambda path: os.chown(path, 3_000_000, 0), "owner"),
    "symlink": (BASE, "bin/alias", lambda path: _replace(path, lambda new: new.symlink_to("tool")), "link"),
    "symlink-owner": (BASE, "bin/alias", lambda path: os.chown(path, 5, 5, follow_symlinks=False), "owner"),
    "hard-link": (BASE, "bin/same", lambda path: _replace(path, lambda new: shutil.copy2(new.parent / "tool", new)),
                  "hardlink"),
    "device": (BASE, "dev/null", lambda path: _replace(path, lambda new: os.mknod(new, stat.S_IFCHR | 0o666,
                                                                                  os.makedev(1, 5))), "device"),
    "no-device": (BASE, "dev/disk", lambda path: _replace(path, lambda new: new.write_bytes(b"")), "type"),
    "fifo": (BASE, "run/pipe", lambda path: path.unlink(), "missing"),
    "fifo-instead": (BASE, "etc/text", lambda path: _replace(path, os.mkfifo), "type"),
    "capability": (BASE, "bin/raw", lambda path: os.removexattr(path, "security.capability"), "xattr"),
    "attribute": (BASE, "etc/text", lambda path: os.setxattr(path, "user.note", b"another"), "xattr"),
    "whiteout": (UPPER, "etc/old", lambda path: path.unlink(), "missing"),
    "whiteout-file": (UPPER, "etc/old", lambda path: _replace(path, lambda new: new.write_bytes(b"")), "whiteout"),
    "opaque": (UPPER, "etc/opaque", lambda path: os.removexattr(path, "trusted.overlay.opaque"), "opaque"),
    "implied": (UPPER, "deep/er", lambda path: shutil.rmtree(path), "missing"),
    "long-link": (UPPER, "deep/link", lambda path: _replace(path, lambda new: new.symlink_to("q" * 149)), "link"),
    "through-link": (UPPER, "usr/lib/through", lambda path: os.truncate(path, 3), "size"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_shows_without_reading_the_files(copied, damage):
    number, name, hurt, kind = DAMAGES[damage]
    layer = copied(number)
    hurt(layer.diff / name)
    found = layercheck.stat_problems(layer.tar_split, layer.diff)
    assert kind in {fault.kind for fault in found}, found
    # What a sound layer shows as well on some kernels is marked so.
    assert all(fault.certain for fault in found) == (damage not in ("whiteout", "whiteout-file", "opaque"))


@pytest.mark.parametrize("number, name", [(BASE, "bin/tool"), (BASE, "umlaut/<ü&>\u2028"), (UPPER, "usr/lib/through"),
                                          (ODD, "zeros"), (SPARSE_10, "hole"), (SPARSE_01, "plain"), (TWICE, "one"),
                                          (TWICE, "usr/lib/through")])
def test_a_changed_byte_shows_with_the_name_of_its_file(copied, number, name):
    layer = copied(number)
    with open(layer.diff / name, "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\xff")
    assert layercheck.stat_problems(layer.tar_split, layer.diff) == []
    assert os.path.basename(name).encode() in layercheck.bad_files(layer.tar_split, layer.diff)[0].name
    assert os.path.basename(name) in layercheck.content_problem(layer.tar_split, layer.diff, layer.diff_id)


def test_lost_content_is_named(copied):
    layer = copied(BASE)
    os.truncate(layer.diff / "bin/tool", 0)
    assert layercheck.content_problem(layer.tar_split, layer.diff, layer.diff_id) == (
        "bin/tool has 0 bytes, not 300000")
    assert [fault.name for fault in layercheck.bad_files(layer.tar_split, layer.diff)] == [b"bin/tool"]


def test_the_tar_split_of_another_layer_is_no_proof(copied):
    layer, other = copied(BASE), copied(UPPER)
    assert layercheck.content_problem(other.tar_split, other.diff, layer.diff_id) is not None


def test_files_that_no_entry_names(copied):
    layer = copied(UPPER)
    (layer.diff / "etc/added").write_bytes(b"")
    (layer.diff / "new").mkdir()
    # This is how the kernel marks an opaque directory, where dockerd leaves it to the kernel.
    os.mknod(layer.diff / "etc/opaque/covered", stat.S_IFCHR, 0)
    assert {fault.name for fault in layercheck.extra_files(layer.tar_split, layer.diff)} == {b"etc/added", b"new"}


def test_remapped_owners(copied):
    layer = copied(BASE)
    # Each file once, however many names it has.
    files = {path.lstat().st_ino: path for path in [layer.diff, *layer.diff.rglob("*")]}
    for path in files.values():
        found = path.lstat()
        os.chown(path, found.st_uid + 100_000, found.st_gid + 200_000, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(found.st_mode))
    os.setxattr(layer.diff / "bin/raw", "security.capability", layertars.CAPABILITY)
    assert layercheck.stat_problems(layer.tar_split, layer.diff, id_offset=(100_000, 200_000)) == []
    assert layercheck.stat_problems(layer.tar_split, layer.diff)


def test_many_faults_are_cut_off(copied):
    layer = copied(BASE)
    shutil.rmtree(layer.diff)
    layer.diff.mkdir()
    assert len(layercheck.stat_problems(layer.tar_split, layer.diff, limit=3)) == 3


def test_nothing_outside_the_layer_is_looked_at(copied, tmp_path):
    layer = copied(BASE)
    outside = tmp_path / "outside"
    shutil.move(layer.diff / "etc", outside)
    for target in (outside, "../../../outside", "../cache/../../outside"):
        (layer.diff / "etc").unlink(missing_ok=True)
        (layer.diff / "etc").symlink_to(target)
        assert layercheck.content_problem(layer.tar_split, layer.diff, layer.diff_id) == "etc/text is missing"


def test_a_file_that_became_a_link_is_not_followed(copied, tmp_path):
    layer = copied(BASE)
    shutil.move(layer.diff / "bin/tool", tmp_path / "tool")
    (layer.diff / "bin/tool").symlink_to(tmp_path / "tool")
    assert layercheck.content_problem(layer.tar_split, layer.diff, layer.diff_id) == "bin/tool is not a regular file"


def test_links_in_a_circle_end(copied):
    layer = copied(BASE)
    shutil.rmtree(layer.diff / "bin")
    (layer.diff / "bin").symlink_to("alias")
    (layer.diff / "alias").symlink_to("bin")
    assert "bin/tool" in layercheck.content_problem(layer.tar_split, layer.diff, layer.diff_id)
    assert layercheck.stat_problems(layer.tar_split, layer.diff)


def test_what_a_power_cut_makes_of_a_tar_split(copied):
    layer = copied(BASE)
    data = layer.tar_split.read_bytes()
    for left in (b"", bytes(len(data)), data[:-1], data[:len(data) // 2], data + b"\0" * 100,
                 data[:4096 // 8] + bytes(len(data) - 4096 // 8)):
        layer.tar_split.write_bytes(left)
        with pytest.raises(tarsplit.TarSplitError):
            layercheck.content_problem(layer.tar_split, layer.diff, layer.diff_id)
    layer.tar_split.unlink()
    with pytest.raises(tarsplit.TarSplitError, match="missing"):
        layercheck.stat_problems(layer.tar_split, layer.diff)
    os.mkfifo(layer.tar_split)
    with pytest.raises(tarsplit.TarSplitError, match="not a regular file"):
        layercheck.stat_problems(layer.tar_split, layer.diff)


def test_a_large_tar_split_takes_little_memory(tmp_path):
    path = tmp_path / "tar-split.json.gz"
    with open(path, "wb") as stream:
        writer = tarsplit.Writer(stream)
        for _number in range(300):
            writer.segment(os.urandom(8) * 8192)
        writer.close()
    assert path.stat().st_size < 2_000_000 < 300 * 65536
    tracemalloc.start()
    try:
        tarsplit.diff_id(path, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


def test_a_line_without_an_end_is_given_up(tmp_path):
    path = tmp_path / "tar-split.json.gz"
    path.write_bytes(gzip.compress(b'{"type":2,"payload":"' + b"A" * 40_000_000, 1))
    tracemalloc.start()
    try:
        with pytest.raises(tarsplit.TarSplitError, match="too long"):
            tarsplit.diff_id(path, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


@PLAIN
@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_in_place_of_a_tar_split(tmp_path, data, packed):
    try:
        tarsplit.diff_id(io.BytesIO(gzip.compress(data) if packed else data), tmp_path)
    except ComposeAppsError:
        return
    assert data == b"" and packed


@settings(PLAIN, max_examples=80)
@given(st.data())
def test_any_damage_to_a_tar_split_is_an_error_or_shows(layerstore, data):
    layer = layerstore.layers[BASE]
    records = layer.records()
    index = data.draw(st.integers(0, len(records) - 1))
    field = data.draw(st.sampled_from(["type", "name", "name_raw", "size", "payload", "position"]))
    value = data.draw(st.one_of(
        st.none(), st.integers(), st.text(), st.lists(st.integers()), st.binary().map(lambda raw: base64.b64encode(
            raw).decode())))
    if records[index].get(field) == value:
        return
    records[index][field] = value
    packed = gzip.compress("\n".join(json.dumps(record) for record in [*records, ""][:-1]).encode() + b"\n", 1)
    try:
        found = tarsplit.diff_id(io.BytesIO(packed), layer.diff)
        layercheck.stat_problems(io.BytesIO(packed), layer.diff)
    except ComposeAppsError:
        return
    ignored = field in ("name", "name_raw") and (records[index]["type"] == 2 or not value) or (
        field == "size" and records[index]["type"] == 2) or (field == "payload" and records[index]["type"] == 1) or (
        # A name that is no text of UTF-8 is told raw, and what stands for it is for people.
        field == "name" and records[index].get("name_raw"))
    assert ignored or found != layer.diff_id


@settings(PLAIN, max_examples=200)
@given(st.data())
def test_any_bytes_in_place_of_a_header(data):
    made = layertars.archive([layertars.entry("umlaut/\udcfc" * 20, data=b"x", SCHILY__xattr__user__x=b"y")])
    stream = io.BytesIO(data.draw(st.one_of(st.binary(max_size=2000), _changed(made))))
    pad = 0
    for _entry in range(10):
        try:
            header, pad = read_header(stream.read, [], pad)
        except HeaderError:
            return
        if header is None:
            return
        stream.read(header.stored)


@st.composite
def _changed(draw, made):
    changed = bytearray(made)
    for _time in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(made), 3072) - 1))
        changed[at:at + 1] = draw(st.binary(min_size=1, max_size=1))
    # A header whose sum is right gets further.
    for at in range(0, min(len(changed), 3072), 512):
        block = changed[at:at + 512]
        block[148:156] = b" " * 8
        changed[at + 148:at + 156] = b"%06o\0 " % sum(block)
    return bytes(changed)
