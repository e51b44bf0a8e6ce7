# SPDX-License-Identifier: MIT
"""Blobs of an app that is not whole yet outlive a program that removes what no app names."""

import os

from composeapps.store import held, partial
from composeapps.store.store import Store
from support.images import sha256

DATA = b"a layer of some bytes"
DIGEST = sha256(DATA)


def test_a_blob_is_taken_back_from_its_second_name(tmp_path):
    store = Store(tmp_path)
    store.add_blob(DIGEST, [DATA])
    assert not held.take_back(store, DIGEST, len(DATA))
    held.hold(store, DIGEST)
    held.hold(store, DIGEST)
    store.blob_path(DIGEST).unlink()
    assert held.take_back(store, DIGEST, len(DATA)) and store.read(DIGEST) == DATA
    assert store.blob_path(DIGEST).samefile(held.path_of(store, DIGEST))
    held.release(store, DIGEST)
    assert list(store.ingest.iterdir()) == [] and store.read(DIGEST) == DATA
    held.release(store, DIGEST)


def test_what_is_damaged_is_not_taken_back(tmp_path):
    store = Store(tmp_path)
    store.add_blob(DIGEST, [DATA])
    held.hold(store, DIGEST)
    store.blob_path(DIGEST).unlink()
    held.path_of(store, DIGEST).write_bytes(DATA[:-1])
    assert not held.take_back(store, DIGEST, len(DATA))
    assert store.size_of(DIGEST) is None and list(store.ingest.iterdir()) == []


def test_what_nobody_went_on_with_goes_after_a_week(tmp_path):
    store = Store(tmp_path)
    for data in (DATA, DATA * 2):
        store.add_blob(sha256(data), [data])
        held.hold(store, sha256(data))
    os.utime(store.blob_path(DIGEST), (1, 1))
    partial.collect(store, [])
    assert [path.name for path in store.ingest.iterdir()] == [held.path_of(store, sha256(DATA * 2)).name]
    assert store.read(DIGEST) == DATA
