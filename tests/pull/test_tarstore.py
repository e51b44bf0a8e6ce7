# SPDX-License-Identifier: MIT
"""A store in one archive: what it gives is what its names say, and nothing else is read."""

import gzip
import hashlib
import io
import os
import tarfile

import pytest

from composeapps.delivery.bundles import Bundle
from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError
from composeapps.pull.fromstore import StoreClient
from composeapps.pull.tarstore import Archive, TarStore

DATA = os.urandom(300_000)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
NAME = f"apps/blobs/sha256/{DIGEST.partition(':')[2]}"


def archive(path, *members):
    """Write an archive of (name, bytes), or of TarInfos without content."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for each in members:
            if isinstance(each, tarfile.TarInfo):
                tar.addfile(each)
            else:
                info = tarfile.TarInfo(each[0])
                info.size = len(each[1])
                tar.addfile(info, io.BytesIO(each[1]))
    return path


def link(name, target, kind=tarfile.LNKTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_blobs_are_read_at_their_place_and_verified(tmp_path):
    store = TarStore(Archive(archive(tmp_path / "a.tar", ("tuf/x" * 60, b"1"), ("./" + NAME, DATA))), "apps")
    assert store.size_of(DIGEST) == len(DATA) and store.read(DIGEST, len(DATA)) == DATA
    client = StoreClient(tmp_path / "a.tar", store)
    for start in (0, 1, 299_999, 300_000):
        body, at = client.open_blob(None, DIGEST, start, size=len(DATA))
        buffer, found = memoryview(bytearray(70_000)), b""
        while count := body.gather(buffer):
            found += buffer[:count]
        body.close()
        assert (at, found, body.length) == (start, DATA[start:], 0)


def test_a_link_to_a_member_before_it_is_that_member_and_others_are_nothing(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(DATA)
    store = TarStore(Archive(archive(
        tmp_path / "a.tar", ("apps/apps/x.tgz", DATA), link(NAME, "apps/apps/x.tgz"))), "apps")
    assert store.read(DIGEST) == DATA
    for member in (link(NAME, str(outside)), link(NAME, str(outside), tarfile.SYMTYPE), link(NAME, NAME),
                   link(NAME, "", tarfile.FIFOTYPE)):
        store = TarStore(Archive(archive(tmp_path / "b.tar", member)), "apps")
        assert store.size_of(DIGEST) is None
        with pytest.raises(NotFoundError):
            store.read(DIGEST)


def test_what_is_not_what_its_name_says_is_refused(tmp_path):
    store = TarStore(Archive(archive(tmp_path / "a.tar", (NAME, DATA[::-1]))), "apps")
    with pytest.raises(CorruptError, match="is not what its name says"):
        store.read(DIGEST)
    with pytest.raises(CorruptError, match="not 5"):
        store.read(DIGEST, 5)


def test_an_archive_that_ends_early_gives_what_is_whole(tmp_path):
    path = archive(tmp_path / "a.tar", ("tuf/bundle-targets.json", b"{}"), (NAME, DATA))
    path.write_bytes(path.read_bytes()[:100_000])
    assert Bundle(path).fetch("bundle-targets.json", 10) == b"{}" and Bundle(path).fetch("other.json", 10) is None
    with pytest.raises(CorruptError):
        TarStore(Archive(path), "apps").read(DIGEST)


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"no archive" * 1000, gzip.compress(DATA), os.urandom(4096)])
def test_what_is_no_bundle_is_refused_by_a_sentence(tmp_path, data):
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(ComposeAppsError) as caught:
        Bundle(path)
    assert str(path) in str(caught.value)
