# SPDX-License-Identifier: MIT
"""The check of bbolt files, on those that a real dockerd wrote and on damaged copies of them."""

import os
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from composeapps.dockerstore import bolt

PAGE = 4096
NO_FREELIST = (1 << 64) - 1
PLAIN = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture(scope="session")
def databases(layerstore):
    """The bbolt files in the data root of a dockerd that was killed, by name."""
    found = {path.name: path for path in layerstore.daemon.data_root.rglob("*.db") if "overlay2" not in path.parts}
    assert {"local-kv.db", "metadata.db", "metadata_v2.db", "cache.db"} <= set(found)
    return found


def _fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) % (1 << 64)
    return value


def page(number, flags, elements=(), overflow=0, body=None):
    """Return a page; elements are (key, value, flags) of a leaf or (key, page) of a branch."""
    size, data = 16, b""
    heads = []
    for index, element in enumerate(elements):
        at = 16 + size * len(elements) + len(data) - (16 + size * index)
        if flags == 1:
            key, child = element
            heads.append(struct.pack("=IIQ", at, len(key), child))
            data += key
        else:
            key, value, kind = element
            heads.append(struct.pack("=IIII", kind, at, len(key), len(value)))
            data += key + value
    body = b"".join(heads) + data if body is None else body
    return (struct.pack("=QHHI", number, flags, len(elements), overflow) + body).ljust(PAGE * (overflow + 1), b"\0")


def meta(number, root, freelist, pages, transaction, magic=0xED0CDAED, version=2, size=PAGE, checksum=None):
    fields = struct.pack("=IIIIQQQQQ", magic, version, size, 0, root, 0, freelist, pages, transaction)
    checksum = _fnv(fields) if checksum is None else checksum
    return page(number, 4, body=fields + struct.pack("=Q", checksum))


def bucket(root, inline=b""):
    return struct.pack("=QQ", root, 0) + inline


def freelist(number, *free):
    made = bytearray(page(number, 16, body=struct.pack(f"={len(free)}Q", *free)))
    struct.pack_into("=H", made, 10, len(free))
    return bytes(made)


def sound():
    """Return a database with a branch, buckets of both kinds, free pages and an overflowing page, page by page."""
    inline = page(0, 2, [(b"k", b"v", 0)])[:40]
    return [
        meta(0, 3, 2, 10, 6), meta(1, 3, 2, 10, 7), freelist(2, 6, 7),
        page(3, 2, [(b"big", bucket(4), 1), (b"inline", bucket(0, inline), 1), (b"plain", b"value", 0)]),
        page(4, 1, [(b"a", 5), (b"m", 8)]),
        page(5, 2, [(b"a", b"1", 0), (b"b", b"2", 0)]), bytes(PAGE), b"\xff" * PAGE,
        page(8, 2, [(b"m", b"3" * 5000, 0)], overflow=1),
    ]


def check(tmp_path, pages):
    path = tmp_path / "x.db"
    path.write_bytes(b"".join(pages))
    return bolt.problem(path)


@pytest.mark.root
def test_what_dockerd_wrote_is_sound(databases):
    assert {name: bolt.problem(path) for name, path in databases.items()} == dict.fromkeys(databases)


@pytest.mark.root
def test_one_torn_meta_page_is_sound_two_are_not(databases, tmp_path):
    for name, path in databases.items():
        data = path.read_bytes()
        (tmp_path / name).write_bytes(bytes(PAGE) + data[PAGE:])
        assert bolt.problem(tmp_path / name) is None
        (tmp_path / name).write_bytes(data[:PAGE] + bytes(PAGE) + data[2 * PAGE:])
        assert bolt.problem(tmp_path / name) is None
        (tmp_path / name).write_bytes(bytes(2 * PAGE) + data[2 * PAGE:])
        assert bolt.problem(tmp_path / name).startswith("neither meta page is valid")


@pytest.mark.root
def test_what_a_power_cut_makes_of_it(databases, tmp_path):
    for name, path in databases.items():
        data, copy = path.read_bytes(), tmp_path / name
        for left in (data[:100], data[:PAGE], data[:PAGE * 2], bytes(len(data)), data[:PAGE * 2] + bytes(len(data))):
            copy.write_bytes(left)
            assert bolt.problem(copy) is not None, (name, len(left))
        copy.write_bytes(b"")
        assert bolt.problem(copy) is None


def test_a_sound_file_in_all_its_parts(tmp_path):
    assert check(tmp_path, sound()) is None
    pages = sound()
    pages[0], pages[1] = meta(0, 3, NO_FREELIST, 10, 8), meta(1, 3, NO_FREELIST, 10, 7)
    assert check(tmp_path, pages) is None
    # The newer meta page is torn, so the older one counts.
    pages = sound()
    pages[1] = meta(1, 9, 9, 10, 7, checksum=0)
    assert check(tmp_path, pages) is None


DAMAGES = {
    "magic": ({0: meta(0, 3, 2, 10, 6, magic=1), 1: bytes(PAGE)}, "neither meta page"),
    "version": ({0: meta(0, 3, 2, 10, 6, version=3), 1: bytes(PAGE)}, "has version 3"),
    "checksum": ({0: meta(0, 3, 2, 10, 6, checksum=1), 1: bytes(PAGE)}, "wrong checksum"),
    "page-size": ({0: meta(0, 3, 2, 10, 9, size=1000)}, "its pages have 1000 bytes"),
    "page-size-zero": ({0: meta(0, 3, 2, 10, 9, size=0)}, "its pages have 0 bytes"),
    "disagree": ({1: meta(1, 3, 2, 10, 9, size=8192)}, "disagree"),
    "high-water": ({0: meta(0, 3, 2, 11, 9)}, "uses 11 pages"),
    "far-high-water": ({0: meta(0, 3, 2, 1 << 63, 9)}, "uses 9223372036854775808 pages"),
    "root": ({0: meta(0, 10, 2, 10, 9)}, "the root is said to be page 10 of 10"),
    "root-is-meta": ({0: meta(0, 1, 2, 10, 9)}, "the root is said to be page 1"),
    "root-lost": ({3: bytes(PAGE)}, "page 3 calls itself page 0"),
    "freelist-lost": ({2: bytes(PAGE)}, "page 2 calls itself page 0"),
    "freelist-page": ({0: meta(0, 3, 5, 10, 9)}, "not the list of free pages"),
    "free-twice": ({2: freelist(2, 6, 6)}, "has page 6 after page 6"),
    "free-meta": ({2: freelist(2, 1)}, "has page 1 after"),
    "free-above": ({2: freelist(2, 6, 10)}, "has page 10"),
    "free-and-used": ({2: freelist(2, 5, 6)}, "page 5 is free and in use"),
    "free-itself": ({2: freelist(2, 2, 6)}, "page 2 is free and in use"),
    "free-too-many": ({2: struct.pack("=QHHI", 2, 16, 0xFFFE, 0).ljust(PAGE, b"\0")}, "longer than its page"),
    "free-far-too-many": ({2: struct.pack("=QHHIQ", 2, 16, 0xFFFF, 0, 1 << 62).ljust(PAGE, b"\0")},
                          "longer than its page"),
    "circle": ({4: page(4, 1, [(b"a", 4), (b"m", 8)])}, "page 4 is referred to twice"),
    "circle-of-buckets": ({5: page(5, 2, [(b"a", bucket(3), 1)])}, "page 3 is referred to twice"),
    "shared": ({4: page(4, 1, [(b"a", 8), (b"m", 8)])}, "page 8 is referred to twice"),
    "unused": ({4: page(4, 1, [(b"a", 5), (b"m", 9)]), 8: page(8, 2), 9: page(9, 2)}, None),
    "overflow": ({8: page(8, 2, [(b"m", b"3", 0)], overflow=2)}, "above the high-water mark"),
    "kind": ({5: page(5, 3, [(b"a", b"1", 0)])}, "neither a branch nor a leaf"),
    "empty-branch": ({4: page(4, 1)}, "branch page 4 is empty"),
    "order": ({5: page(5, 2, [(b"b", b"1", 0), (b"a", b"2", 0)])}, "out of order"),
    "same-key": ({5: page(5, 2, [(b"b", b"1", 0), (b"b", b"2", 0)])}, "out of order"),
    "of-another-branch": ({5: page(5, 2, [(b"a", b"1", 0), (b"n", b"2", 0)])}, "out of order"),
    "below-its-branch": ({8: page(8, 2, [(b"b", b"3", 0)], overflow=1)}, "out of order"),
    "element": ({5: page(5, 2, [(b"a", b"1", 0)], body=struct.pack("=IIII", 0, 16, 1, 5000))}, "not within it"),
    "position": ({5: page(5, 2, [(b"a", b"1", 0)], body=struct.pack("=IIII", 0, 0xFFFFFFFF, 1, 1))}, "not within it"),
    "key-in-elements": ({5: page(5, 2, [(b"a", b"1", 0)], body=struct.pack("=IIII", 0, 0, 1, 1))}, "not within it"),
    "count": ({5: struct.pack("=QHHI", 5, 2, 60000, 0).ljust(PAGE, b"\0")}, "more elements"),
    "bucket-short": ({3: page(3, 2, [(b"big", b"short", 1)])}, "malformed bucket"),
    "bucket-cut": ({3: page(3, 2, [(b"big", bucket(0), 1)])}, "malformed bucket"),
    "bucket-inline": ({3: page(3, 2, [(b"big", bucket(0, bytes(16)), 1)])}, "malformed bucket"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(tmp_path, damage):
    changes, message = DAMAGES[damage]
    pages = sound()
    # The overflowing page is two pages long.
    pages[8:] = [pages[8][:PAGE], pages[8][PAGE:]]
    for number, data in changes.items():
        pages[number:number + len(data) // PAGE] = [data[at:at + PAGE] for at in range(0, len(data), PAGE)]
    found = check(tmp_path, pages[:10])
    if message is None:
        assert found is None
    else:
        assert message in found


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for name in ("fifo", "link", "."):
        assert "not a regular file" in bolt.problem(tmp_path / name)
    assert bolt.problem(tmp_path / "missing") is None


def test_a_descriptor_does_as_well(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(bytes(9000))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert bolt.problem(descriptor).startswith("neither")
    finally:
        os.close(descriptor)


@settings(PLAIN, max_examples=100)
@given(st.binary(max_size=12_000))
def test_any_bytes(tmp_path, data):
    path = tmp_path / "x.db"
    path.write_bytes(data)
    assert (bolt.problem(path) is None) == (not data)


@settings(PLAIN, max_examples=300)
@given(st.lists(st.tuples(st.integers(2 * PAGE, 10 * PAGE - 1), st.binary(min_size=1, max_size=8)), min_size=1,
                max_size=5))
def test_any_damage_ends_in_a_sentence_or_not(tmp_path, changes):
    data = bytearray(b"".join(sound()))
    for at, new in changes:
        data[at:at + len(new)] = new
    path = tmp_path / "x.db"
    path.write_bytes(data[:10 * PAGE])
    found = bolt.problem(path)
    assert found is None or isinstance(found, str)


@settings(PLAIN, max_examples=100)
@given(st.data())
def test_any_damage_to_what_dockerd_wrote(tmp_path, databases, data):
    made = bytearray(data.draw(st.sampled_from(sorted(databases.values()))).read_bytes())
    for _time in range(data.draw(st.integers(1, 3))):
        # Mostly where something is.
        at = data.draw(st.integers(0, len(made) // PAGE - 1)) * PAGE + data.draw(st.integers(0, 600))
        new = data.draw(st.binary(min_size=1, max_size=16))
        made[at:at + len(new)] = new
    path = tmp_path / "x.db"
    path.write_bytes(made)
    found = bolt.problem(path)
    assert found is None or isinstance(found, str)
