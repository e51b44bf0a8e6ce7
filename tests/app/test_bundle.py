# SPDX-License-Identifier: MIT
"""Bundles: what goes in comes out the same, and nothing leaves its directory."""

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composeapps.app import bundle
from composeapps.errors import CorruptError, NotFoundError, UsageError
from support.steps import beyond_linear, counted

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


def index(data, *wanted):
    contents = bundle.read(io.BytesIO(data), "the bundle", wanted)
    return contents.index, contents.texts(wanted)[0]


def test_round_trip_keeps_links_modes_and_empty_files(app):
    data, packed = pack(app)
    found, contents = index(data, "docker-compose.yml", "conf/empty", "none")
    assert contents == {"docker-compose.yml": COMPOSE, "conf/empty": b""}
    assert found["current"] == bundle.Member(bundle.LINK, target="conf/site.conf")
    assert (found["run.sh"].kind, found["run.sh"].mode) == (bundle.FILE, 0o755)
    assert (found["emptydir"].kind, found["emptydir"].mode) == (bundle.DIRECTORY, 0o700)
    assert {name: member.digest for name, member in found.items() if member.kind == bundle.FILE} == {
        name: digest for name, digest in packed.items() if name != "current"}


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


def test_a_chain_of_links_that_leaves_is_not_packed(app):
    (app / "here").symlink_to(".")
    pack(app)
    (app / "out").symlink_to("here/../victim")
    with pytest.raises(UsageError, match=r"out is a link to 'here/\.\./victim', outside"):
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
def test_hostile_bundles_are_refused(kind):
    with pytest.raises(CorruptError, match="the bundle"):
        index(HOSTILE[kind])


def test_links_of_other_publishers_are_read():
    found, contents = index(archive(
        ({"name": "conf/a", "mode": 0o640}, b"one"),
        ({"name": "conf/b", "type": tarfile.LNKTYPE, "linkname": "conf/a"}, b""),
        ({"name": "c", "type": tarfile.LNKTYPE, "linkname": "./conf/b"}, b""),
        ({"name": "zone", "type": tarfile.SYMTYPE, "linkname": "/etc/localtime"}, b""),
        ({"name": "conf/a", "mode": 0o600}, b"another")), "c")
    assert found["c"] == found["conf/b"] and (found["c"].mode, found["c"].size, found["c"].source) == (0o640, 3, 0)
    assert contents == {"c": b"one"} or not contents
    assert (found["conf/a"].size, found["conf/a"].source) == (7, 4) and found["conf"].mode == -1
    assert found["zone"].target == "/etc/localtime"


def test_nobody_gets_the_rights_of_a_files_owner():
    found, _contents = index(archive(({"name": "su", "mode": 0o6755}, b"x"),
                                     ({"name": "tmp", "type": tarfile.DIRTYPE, "mode": 0o3777}, b"")))
    assert (found["su"].mode, found["tmp"].mode) == (0o755, 0o1777)


class _Endless(io.RawIOBase):
    """A file that begins with something and goes on with zeros."""

    def __init__(self, begin, size):
        self._begin, self._size, self._at = begin, size, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._at

    def seek(self, offset, whence=0):
        self._at = offset + (self._at if whence == 1 else 0)
        return self._at

    def readinto(self, buffer):
        count = max(0, min(len(buffer), self._size - self._at))
        part = self._begin[self._at:self._at + count]
        buffer[:count] = part + bytes(count - len(part))
        self._at += count
        return count


def _header(kind, size, name="x"):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("begin", [
    _header(tarfile.XHDTYPE, 600_000_000), _header(tarfile.XGLTYPE, 600_000_000),
    _header(tarfile.GNUTYPE_LONGNAME, 600_000_000), _header(tarfile.GNUTYPE_LONGLINK, 600_000_000),
    b"".join(_header(tarfile.XHDTYPE, 0) for _ in range(1000)),
    b"".join(_header(tarfile.XGLTYPE, 512) + bytes(512) + _header(tarfile.REGTYPE, 0, f"f{n}") for n in range(200)),
    _header(tarfile.GNUTYPE_SPARSE, 0), _header(tarfile.REGTYPE, 2**40), _header(tarfile.REGTYPE, -1),
], ids=["pax", "global", "long name", "long link", "chain", "many globals", "sparse", "huge", "negative"])
def test_what_only_costs_memory_is_refused_at_once(begin):
    stream = io.BufferedReader(_Endless(begin, 700_000_000))
    tracemalloc.start()
    with pytest.raises(CorruptError, match="^the bundle"):
        bundle.read(stream, "the bundle")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.REGTYPE])
def test_members_take_steps_by_their_number(kind):
    sizes, counts = (100, 200, 400), []
    for size in sizes:
        data = archive(({"name": "d/x"}, b"x"), *(({"name": f"d/l{n}", "type": kind, "linkname": "d/x"}, b"")
                                                  for n in range(size)))
        (found, _texts), count = counted(index, data)
        assert len(found) == size + 2
        counts.append(count)
    assert beyond_linear(sizes, counts) == []


def test_names_that_are_not_utf_8_stay_what_they_are():
    name = os.fsdecode(b"caf\xe9")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name))
    assert set(index(data.getvalue())[0]) == {name}


@pytest.mark.parametrize("name", ["n" * 256, "d/" * 3000 + "x", "é" * 128])
def test_names_that_no_file_can_have_are_refused(name):
    with pytest.raises(CorruptError, match="longer than"):
        index(archive(({"name": name}, b"x")))


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


def test_no_compose_file(tmp_path):
    with pytest.raises(NotFoundError, match="the bundle has no docker-compose.yml at its root"):
        bundle.read_compose(io.BytesIO(archive(({"name": "sub/docker-compose.yml"}, b"x"))), "the bundle")
