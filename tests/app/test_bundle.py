# SPDX-License-Identifier: MIT
"""Bundles: what goes in comes out the same, and nothing leaves its directory."""

import contextlib
import gzip
import hashlib
import io
import os
import stat
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composeapps.app import bundle
from composeapps.errors import CorruptError, NotFoundError, UsageError

COMPOSE = b"services: {}\n"


def pack(directory):
    out = io.BytesIO()
    index = bundle.create(directory, COMPOSE, out)
    return out.getvalue(), index


def archive(*members):
    """A .tgz of (TarInfo attributes, content) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for attributes, content in members:
            info = tarfile.TarInfo()
            for key, value in attributes.items():
                setattr(info, key, value)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def app(tmp_path):
    directory = tmp_path / "app"
    (directory / "conf").mkdir(parents=True)
    (directory / "docker-compose.yml").write_bytes(b"replaced")
    (directory / "conf" / "site.conf").write_text("x")
    (directory / "conf" / "empty").touch()
    (directory / "run.sh").write_text("#!/bin/sh\n")
    (directory / "run.sh").chmod(0o755)
    (directory / "current").symlink_to("conf/site.conf")
    (directory / "emptydir").mkdir(mode=0o700)
    return directory


def test_round_trip_keeps_links_modes_and_empty_files(app, tmp_path):
    data, _ = pack(app)
    out = tmp_path / "out"
    out.mkdir()
    bundle.extract(io.BytesIO(data), out, "bundle")
    assert (out / "docker-compose.yml").read_bytes() == COMPOSE
    assert os.readlink(out / "current") == "conf/site.conf"
    assert (out / "conf" / "empty").read_bytes() == b""
    assert stat.S_IMODE((out / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "emptydir").stat().st_mode) == 0o700
    assert bundle.differences(io.BytesIO(data), out, "bundle") == []


def test_the_same_directory_gives_the_same_bytes(app):
    first, _ = pack(app)
    os.utime(app / "run.sh", (1, 1))
    assert pack(app)[0] == first
    (app / "run.sh").write_text("#!/bin/sh\necho\n")
    assert pack(app)[0] != first


def test_index_has_a_digest_for_each_file(app):
    _, index = pack(app)
    assert set(index) == {"docker-compose.yml", "conf/site.conf", "conf/empty", "run.sh", "current"}
    digest = "sha256:" + hashlib.sha256(b"x").hexdigest()
    # A reader that follows the link must find what the index says.
    assert index["conf/site.conf"] == index["current"] == digest
    assert index["docker-compose.yml"] == "sha256:" + hashlib.sha256(COMPOSE).hexdigest()


def test_times_are_zero_and_the_compose_file_is_at_the_root(app):
    data, _ = pack(app)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
    assert {member.mtime for member in members.values()} == {0}
    assert members["docker-compose.yml"].isreg()


@pytest.mark.parametrize(
    ("rules", "absent", "present"),
    [
        ("conf\n", {"conf/site.conf", "conf/empty", ".composeappignores"}, {"run.sh"}),
        ("**/*.conf\n# comment\n", {"conf/site.conf"}, {"conf/empty"}),
        ("conf\n!conf/empty\n", {"conf/site.conf"}, {"conf/empty"}),
        ("site.conf\n", set(), {"conf/site.conf"}),
        ("*\n", {"run.sh", "conf/empty"}, {"docker-compose.yml"}),
    ],
)
def test_ignore_file(app, rules, absent, present):
    (app / ".composeappignores").write_text(rules)
    index = set(pack(app)[1])
    assert present <= index and not absent & index


def test_a_link_that_leaves_is_not_packed(app):
    (app / "out").symlink_to("../../etc/passwd")
    with pytest.raises(UsageError, match=r"out is a link to '\.\./\.\./etc/passwd', outside"):
        pack(app)


def test_an_absolute_link_is_not_packed(app):
    (app / "out").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="outside"):
        pack(app)


def test_a_fifo_is_not_packed(app):
    os.mkfifo(app / "pipe")
    with pytest.raises(UsageError, match="pipe is neither a file"):
        pack(app)


HOSTILE = {
    "absolute name": archive(({"name": "/etc/passwd"}, b"x")),
    "parent name": archive(({"name": "a/../../x"}, b"x")),
    "through an absolute link": archive(
        ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "/etc"}, b""), ({"name": "l/passwd"}, b"x")),
    "leaving link": archive(({"name": "d/l", "type": tarfile.SYMTYPE, "linkname": "../../etc"}, b"")),
    "through a link": archive(
        ({"name": "d", "type": tarfile.DIRTYPE}, b""), ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "d"}, b""),
        ({"name": "l/x"}, b"x")),
    "over a link": archive(
        ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "x"}, b""), ({"name": "l"}, b"x")),
    "device": archive(({"name": "null", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, b"")),
    "fifo": archive(({"name": "pipe", "type": tarfile.FIFOTYPE}, b"")),
    "hard link": archive(({"name": "h", "type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, b"")),
    "hard link up": archive(({"name": "d/h", "type": tarfile.LNKTYPE, "linkname": "../x"}, b"")),
    "hard link to a link": archive(
        ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, b""),
        ({"name": "h", "type": tarfile.LNKTYPE, "linkname": "l"}, b"")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bundles_are_refused_and_write_nothing_outside(kind, tmp_path):
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    with pytest.raises(CorruptError, match="the bundle"):
        bundle.extract(io.BytesIO(HOSTILE[kind]), out, "the bundle")
    assert [p for p in tmp_path.rglob("*") if not p.is_relative_to(out) and p not in (tmp_path / "a",)] == []


def test_links_of_other_publishers_are_unpacked(tmp_path):
    data = archive(
        ({"name": "conf/a", "mode": 0o640}, b"one"),
        ({"name": "conf/b", "type": tarfile.LNKTYPE, "linkname": "conf/a"}, b""),
        ({"name": "c", "type": tarfile.LNKTYPE, "linkname": "./conf/b"}, b""),
        ({"name": "zone", "type": tarfile.SYMTYPE, "linkname": "/etc/localtime"}, b""))
    bundle.extract(io.BytesIO(data), tmp_path, "the bundle")
    assert [(path.read_bytes(), stat.S_IMODE(path.stat().st_mode), path.stat().st_nlink)
            for path in (tmp_path / "conf/a", tmp_path / "conf/b", tmp_path / "c")] == [(b"one", 0o640, 1)] * 3
    assert os.readlink(tmp_path / "zone") == "/etc/localtime"
    assert bundle.differences(io.BytesIO(data), tmp_path, "the bundle") == []
    (tmp_path / "c").write_bytes(b"two")
    assert bundle.differences(io.BytesIO(data), tmp_path, "the bundle") == ["c has other content"]
    (tmp_path / "c").write_bytes(b"one")
    (tmp_path / "conf/a").unlink()
    assert "conf/a is missing" in bundle.differences(io.BytesIO(data), tmp_path, "the bundle")


@pytest.mark.root
def test_what_is_unpacked_belongs_to_who_unpacks_it(tmp_path):
    data = archive(*(({"name": name, "type": kind, "uid": 1000, "gid": 1001, "linkname": "f", "mode": 0o755}, b"")
                     for name, kind in (("d", tarfile.DIRTYPE), ("f", tarfile.REGTYPE), ("l", tarfile.SYMTYPE))))
    bundle.extract(io.BytesIO(data), tmp_path, "the bundle")
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in tmp_path.iterdir()} == {(0, 0)}


@pytest.mark.parametrize(
    "damage",
    [lambda d: d[: len(d) // 2], lambda d: d[:10] + b"\xff" * 20 + d[30:], lambda d: b"no", lambda d: b""],
    ids=["truncated", "overwritten", "no archive", "empty"],
)
def test_damage_is_one_sentence(app, damage, tmp_path):
    data, _ = pack(app)
    with pytest.raises((CorruptError, NotFoundError), match="^the bundle"):
        bundle.read_compose(io.BytesIO(damage(data)), "the bundle")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000), st.booleans())
def test_no_bytes_crash_the_reader(tmp_path_factory, data, packed):
    stream = io.BytesIO(gzip.compress(data) if packed else data)
    with contextlib.suppress(CorruptError, NotFoundError):
        bundle.read_compose(stream, "the bundle")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: (d / "run.sh").write_text("other"), "run.sh has other content"),
        (lambda d: (d / "run.sh").chmod(0o644), "run.sh has another mode"),
        (lambda d: (d / "conf" / "empty").unlink(), "conf/empty is missing"),
        (lambda d: ((d / "current").unlink(), (d / "current").symlink_to("run.sh")), "current is not the link"),
    ],
)
def test_differences_are_named(app, tmp_path, spoil, says):
    data, _ = pack(app)
    out = tmp_path / "out"
    out.mkdir()
    bundle.extract(io.BytesIO(data), out, "bundle")
    spoil(out)
    assert any(says in problem for problem in bundle.differences(io.BytesIO(data), out, "bundle"))


def test_no_compose_file(tmp_path):
    with pytest.raises(NotFoundError, match="the bundle has no docker-compose.yml at its root"):
        bundle.read_compose(io.BytesIO(archive(({"name": "sub/docker-compose.yml"}, b"x"))), "the bundle")
