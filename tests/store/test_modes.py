# SPDX-License-Identifier: MIT
"""What a store holds, bundles with secrets perhaps, is for its owner alone, whatever the umask says."""

import hashlib
import os
import stat

import pytest

from composeapps import beneath, durable
from composeapps.store.store import Store
from support.device import Device


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("umask", (0, 0o077))
def test_only_the_owner_gets_into_a_store(tmp_path, umask):
    before = os.umask(umask)
    try:
        device = Device(tmp_path)
        device.version({"a": {"image": "base"}}, {"key": "secret"})
    finally:
        os.umask(before)
    store = device.config.store
    assert [mode(store / name) for name in ("blobs", "apps", "ingest")] == [0o700] * 3
    assert {mode(path) for path in (store / "blobs/sha256").iterdir()} == {0o644}


def test_a_store_of_an_older_agent_is_closed_by_the_next_write(tmp_path):
    store = Store(tmp_path / "store")
    for name in ("blobs/sha256", "apps", "ingest"):
        (store.root / name).mkdir(parents=True, mode=0o755)
    store.add_blob("sha256:" + hashlib.sha256(b"x").hexdigest(), [b"x"])
    assert [mode(store.root / name) for name in ("blobs", "apps", "ingest")] == [0o700] * 3


@pytest.mark.parametrize("umask", (0, 0o077))
@pytest.mark.parametrize("wanted", (0o600, 0o644, 0o755))
def test_a_file_has_its_mode_before_its_content(tmp_path, umask, wanted):
    before = os.umask(umask)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with durable.create(tmp_path / "a", wanted) as stream:
            assert mode(tmp_path / "a") == wanted and stream.tell() == 0
        (tmp_path / "b").symlink_to("victim")
        with beneath.create(directory, "b", wanted) as stream:
            assert mode(tmp_path / "b") == wanted and stream.tell() == 0
        durable.write_file(tmp_path / "c", b"x", wanted)
    finally:
        os.umask(before)
        os.close(directory)
    assert mode(tmp_path / "c") == wanted and not (tmp_path / "victim").exists()
