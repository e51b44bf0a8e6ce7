# SPDX-License-Identifier: MIT
"""What is made of a blob while it is read counts when its digest was right, and nothing else does."""

import os

import pytest

from composeapps.app import bundle
from composeapps.errors import CorruptError, NotFoundError
from composeapps.oci.digests import sha256
from composeapps.oci.onepass import Forward, parsed
from composeapps.store.store import CHUNK, Store
from support.apps import make_app

DATA = os.urandom(3 * CHUNK + 17)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    store.add_blob(sha256(DATA), [DATA])
    return store


def everything(stream):
    return b"".join(iter(lambda: stream.read(100_000), b""))


def test_all_of_it_is_read_and_what_is_left_is_verified_too(store):
    assert store.parse(sha256(DATA), everything, len(DATA)) == DATA
    assert store.parse(sha256(DATA), lambda stream: stream.read(5)) == DATA[:5]
    assert store.parse(sha256(DATA), lambda _stream: 7) == 7


def test_pieces_of_any_size_come_as_they_are():
    stream = Forward([b"a" * 3, b"", b"b" * 10, b"", b"", b"c", b""])
    assert [stream.read(4) for _ in range(7)] == [b"aaa", b"bbbb", b"bbbb", b"bb", b"c", b"", b""]
    assert everything(Forward([b"ab", b"cde"])) == b"abcde" and everything(Forward([])) == b""


@pytest.mark.parametrize("at", [0, CHUNK, len(DATA) - 1])
def test_what_was_made_of_a_damaged_blob_is_not_returned(store, at):
    damaged = bytearray(DATA)
    damaged[at] ^= 1
    store.blob_path(sha256(DATA)).write_bytes(damaged)
    for parse in (everything, lambda stream: stream.read(1), lambda _stream: 7):
        with pytest.raises(CorruptError, match="is damaged"):
            store.parse(sha256(DATA), parse)


def _unfit(_stream):
    raise NotFoundError("it has no compose file")


def test_damage_is_told_before_what_it_led_to(store):
    with pytest.raises(NotFoundError, match="no compose file"):
        store.parse(sha256(DATA), _unfit)
    store.blob_path(sha256(DATA)).write_bytes(DATA[:-1] + b"?")
    with pytest.raises(CorruptError, match="is damaged"):
        store.parse(sha256(DATA), _unfit)
    with pytest.raises(CorruptError, match="has .* bytes, not"):
        store.parse(sha256(DATA), everything, len(DATA) + 1)


@pytest.mark.parametrize("change", [
    lambda path: os.truncate(path, CHUNK + 5), lambda path: path.write_bytes(b"\0" * len(DATA)),
    lambda path: os.truncate(path, 100 * CHUNK)], ids=["truncated", "overwritten", "sparse"])
def test_a_blob_that_changes_while_it_is_read_is_damaged(store, change):
    def parse(stream):
        begin = stream.read(CHUNK)
        change(store.blob_path(sha256(DATA)))
        return begin + everything(stream)

    with pytest.raises(CorruptError, match="is damaged"):
        store.parse(sha256(DATA), parse, len(DATA))


def test_one_that_is_replaced_while_it_is_read_is_what_it_was(store):
    path = store.blob_path(sha256(DATA))

    def parse(stream):
        begin = stream.read(1)
        path.with_name("new").write_bytes(b"another")
        path.with_name("new").rename(path)
        return begin + everything(stream)

    assert store.parse(sha256(DATA), parse, len(DATA)) == DATA


def test_an_error_of_the_source_passes_through():
    failure = CorruptError("the registry sent something else")

    def chunks():
        yield b"a"
        raise failure

    with pytest.raises(CorruptError) as caught:
        parsed(chunks(), everything)
    assert caught.value is failure


def test_a_bundle_is_verified_to_its_last_byte(store):
    packed = make_app("services: {}\n", {"a": "text"}).bundle
    # What follows an archive is nobody's, and is of the blob all the same.
    for data in (packed, packed + b"behind it", packed + b"\0" * 2 * CHUNK):
        store.add_blob(sha256(data), [data])
        assert store.parse(sha256(data), lambda s: bundle.read_compose(s, "it")) == b"services: {}\n"
        store.blob_path(sha256(data)).write_bytes(data[:-1] + b"?")
        with pytest.raises(CorruptError, match="is damaged"):
            store.parse(sha256(data), lambda s: bundle.read_compose(s, "it"))
