# SPDX-License-Identifier: MIT
"""Pulling apps from a real registry into a store: what is fetched, what is not, what becomes of partials."""

import contextlib
import json
import os
import subprocess
import time

import pytest

from composeapps.errors import CorruptError, RegistryError, SpaceError, StorageError
from composeapps.oci.reference import parse_pinned
from composeapps.pull.progress import Progress
from composeapps.pull.pull import fetch, survey
from composeapps.store import held, partial
from composeapps.store.store import Store
from support.apps import compose_text, make_app, push_app
from support.faults import FaultyProxy
from support.images import MANIFEST, push_blob, push_image, push_manifest
from support.pulls import Notes, blob_image, client_for, is_whole, layers, no_network, publish_app, pull

SIZES = (1_500_000, 900_000, 300_000, 50_000)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def shop(registry, factory_name):
    """An app with four layers in the registry, not like that of any other test."""
    return publish_app(registry, f"{factory_name}/shop", *SIZES, seed=factory_name)


def put_partial(store, digest, data, app="shop", boot=None, synced=0):
    """Leave a partial as an interrupted pull does."""
    store.ingest.mkdir(parents=True, exist_ok=True)
    path = partial.path_of(store, digest)
    path.write_bytes(data)
    mark = {"boot": partial.boot_id() if boot is None else boot, "synced": synced, "app": app}
    path.with_suffix(partial.MARK_SUFFIX).write_text(json.dumps(mark))
    return path


def test_a_pulled_app_is_complete_and_needs_no_network_again(registry, store, shop):
    found = survey(shop, store, client_for(registry))
    assert found.size == sum(blob.descriptor.size for blob in found.missing)
    assert not store.root.exists(), "a survey writes nothing"
    progress = Notes()
    fetch(found, store, client_for(registry), progress)
    assert is_whole(store, shop)
    assert sorted(progress.finished) == sorted(blob.descriptor.digest for blob in found.missing)
    assert os.listdir(store.ingest) == []
    again = survey(shop, store, no_network)
    assert again.missing == () and again.size == 0
    assert fetch(again, store, no_network, Progress()).ref == shop


def test_the_largest_comes_first_over_connections_that_are_kept(registry, store, shop):
    with FaultyProxy(registry.url) as proxy:
        app = pull(shop, store, client_for(registry, proxy.url), parallel=2)
        digests = [layer.digest for layer in layers(app)]
        asked = [path.rpartition("/")[2] for path in proxy.paths]
        assert {digest for digest in [each for each in asked if each in digests][:2]} == set(digests[:2])
        assert len(asked) > 8
        assert proxy.connections <= 3, "one of the survey, one of each worker"


def test_what_was_interrupted_goes_on_at_the_byte_where_it_stopped(registry, store, shop):
    with FaultyProxy(registry.url, cut_after=400_000, only="/blobs/") as proxy:
        def refused(*_args):
            raise RegistryError("enough")

        client = client_for(registry, proxy.url)
        client().next_pause = refused
        with pytest.raises(RegistryError):
            pull(shop, store, client)
    begun = {path.stem: path.stat().st_size for path in store.ingest.glob("*.part")}
    assert begun and store.list_apps() == []
    with FaultyProxy(registry.url) as proxy:
        app = pull(shop, store, client_for(registry, proxy.url))
        for layer in layers(app):
            sent = proxy.sent.get(next((path for path in proxy.sent if path.endswith(layer.digest)), ""), 0)
            there = begun.get(layer.digest.partition(":")[2], 0)
            if there:
                assert f"bytes={there}-" in proxy.ranges
                assert sent == layer.size - there
    assert is_whole(store, shop)


@pytest.mark.parametrize("damage", ["other bytes", "too long", "zeros"])
def test_a_damaged_partial_is_fetched_again_and_no_wedge(registry, store, shop, damage):
    largest = layers(survey(shop, store, client_for(registry)).app)[0]
    content = {"other bytes": b"x" * 500_000, "too long": b"x" * (largest.size + 1), "zeros": bytes(largest.size)}
    put_partial(store, largest.digest, content[damage])
    progress = Notes()
    pull(shop, store, client_for(registry), progress)
    assert is_whole(store, shop)
    assert all(count == store.size_of(digest) for digest, count in progress.received.items()
               if digest == largest.digest)
    assert list(store.ingest.iterdir()) == []


def test_after_a_power_cut_what_was_synced_is_kept_and_no_more(registry, store, shop):
    """In another boot the end of a file may be zeros: it goes on from where it was synced."""
    source = Store(store.root.with_name("source"))
    largest = layers(pull(shop, source, client_for(registry)))[0]
    data = source.blob_path(largest.digest).read_bytes()
    put_partial(store, largest.digest, data[:700_000] + bytes(200_000), boot="another", synced=700_000)
    with FaultyProxy(registry.url) as proxy:
        pull(shop, store, client_for(registry, proxy.url))
        assert "bytes=700000-" in proxy.ranges
    assert is_whole(store, shop)


def test_a_second_power_cut_loses_nothing_that_was_synced_before_the_first(registry, store, shop):
    """Whoever takes a partial over vouches for what was synced, even if it ends before it syncs anything."""
    source = Store(store.root.with_name("source"))
    largest = layers(pull(shop, source, client_for(registry)))[0]
    data = source.blob_path(largest.digest).read_bytes()
    put_partial(store, largest.digest, data[:700_000] + bytes(200_000), boot="another", synced=700_000)
    partial.Partial(store, largest.digest, largest.size, "shop").close()
    mark = json.loads(partial.path_of(store, largest.digest).with_suffix(".mark").read_text())
    assert mark["synced"] == 700_000 and mark["boot"] == partial.boot_id()


@pytest.mark.parametrize("limit, value", [("SYNC_EVERY", 300_000), ("SYNC_SECONDS", 0)])
def test_a_large_blob_is_synced_on_the_way(registry, store, factory_name, monkeypatch, limit, value):
    monkeypatch.setattr(partial, "SYNC_SECONDS", 10**6)
    monkeypatch.setattr(partial, limit, value)
    shop = publish_app(registry, f"{factory_name}/shop", 1_500_000, seed=factory_name)
    with FaultyProxy(registry.url, hold_after=1_000_000, only="/blobs/") as proxy:
        found = survey(shop, store, client_for(registry, proxy.url))

        class Stop(Notes):
            def advance(self, digest, count):
                super().advance(digest, count)
                if self.received[digest] > 700_000:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch(found, store, client_for(registry, proxy.url), Stop())
    marks = [json.loads(path.read_text()) for path in store.ingest.glob("*.mark")]
    assert max(mark["synced"] for mark in marks) >= 300_000
    assert {mark["boot"] for mark in marks} == {partial.boot_id()} and {mark["app"] for mark in marks} == {"shop"}


def test_a_partial_is_of_use_to_any_app_that_has_the_blob(registry, store, factory_name):
    image = blob_image(*SIZES, seed=factory_name)
    pinned = push_image(registry, f"{registry.host}/{factory_name}/image:1", image)
    one, two = (parse_pinned(push_app(registry, f"{registry.host}/{factory_name}/{name}:1",
                                      make_app(compose_text({"web": pinned}), {"name": name}, [image])))
                for name in ("one", "two"))
    app = survey(one, store, client_for(registry)).app
    largest = layers(app)[0]
    put_partial(store, largest.digest, image.blobs[largest.digest][:1_000_000], app="one")
    with FaultyProxy(registry.url) as proxy:
        pull(two, store, client_for(registry, proxy.url))
        assert "bytes=1000000-" in proxy.ranges
    with FaultyProxy(registry.url) as proxy:
        pull(one, store, client_for(registry, proxy.url))
        assert not any(layer.digest in path for layer in layers(app) for path in proxy.paths), "layers are shared"
    assert is_whole(store, one) and is_whole(store, two)


def test_partials_that_nobody_wants_are_collected(registry, store, shop):
    def digest(n):
        return f"sha256:{n:064x}"

    superseded = put_partial(store, digest(1), b"a version that is not wanted any more", app="shop")
    others = put_partial(store, digest(2), b"another app's, which goes on one day", app="web")
    forgotten = put_partial(store, digest(3), b"another app's, of long ago", app="web")
    unknown = put_partial(store, digest(4), b"whose?")
    unknown.with_suffix(".mark").unlink()
    long_ago = time.time() - partial.KEEP_SECONDS - 10
    os.utime(forgotten, (long_ago, long_ago))
    pull(shop, store, client_for(registry))
    assert others.exists() and others.with_suffix(".mark").exists()
    assert sorted(store.ingest.iterdir()) == sorted((others, others.with_suffix(".mark")))
    assert not superseded.exists() and not forgotten.exists() and not unknown.exists()
    store.remove_stale()
    assert others.exists(), "what a killed writer left is something else"
    assert partial.collect(store, [], everything=True) == (1, len(b"another app's, which goes on one day"))


def test_an_app_without_its_optional_blobs_is_complete(registry, store, factory_name):
    image = blob_image(60_000, seed=factory_name)
    pinned = push_image(registry, f"{registry.host}/{factory_name}/image:1", image)
    app = make_app(compose_text({"web": pinned}), {}, [image])
    repo = f"{factory_name}/shop"
    push_blob(registry, repo, b"{}")
    push_blob(registry, repo, app.bundle)
    # A registry checks that what a manifest names is there; the index is only in an annotation.
    push_blob(registry, repo, app.layers_meta)
    push_manifest(registry, repo, "1", MANIFEST, app.manifest)
    ref = parse_pinned(f"{registry.host}/{repo}@{app.digest}")
    progress = Notes()
    pull(ref, store, client_for(registry), progress)
    assert any("is not needed" in note for note in progress.notes)
    assert is_whole(store, ref)
    assert survey(ref, store, no_network).missing == ()


def test_a_flipped_byte_is_found_and_nothing_else_fetched(registry, store, shop):
    app = pull(shop, store, client_for(registry))
    for blob in app.blobs():
        path, before = store.blob_path(blob.descriptor.digest), store.blob_path(blob.descriptor.digest).read_bytes()
        middle = len(before) // 2
        path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1:])
        with FaultyProxy(registry.url) as proxy:
            pull(shop, store, client_for(registry, proxy.url), verify=True)
            assert {each.rpartition("/")[2] for each in proxy.paths} == {blob.descriptor.digest}
        assert path.read_bytes() == before
        links = [each for each in store.app_dir(shop).iterdir() if each.samefile(path)]
        names = {"manifest.json"} if blob.kind == "manifests" and blob.ref == shop else set()
        assert names <= {each.name for each in links}, "the app's own links follow the mended blob"
    assert is_whole(store, shop)


def test_a_large_bundle_is_fetched_once(registry, store, factory_name):
    content = os.urandom(6_000_000)
    shop = publish_app(registry, f"{factory_name}/shop", 50_000, seed=factory_name, files={"data": content})
    with FaultyProxy(registry.url) as proxy:
        app = pull(shop, store, client_for(registry, proxy.url))
        assert sum(sent for path, sent in proxy.sent.items() if path.endswith(app.bundle.digest)) == app.bundle.size
    assert is_whole(store, shop)
    bare = Store(store.root.with_name("bare"))
    assert survey(shop, bare, client_for(registry)).app.bundle == app.bundle
    assert not bare.root.exists()


@pytest.mark.root
def test_a_full_disk_ends_it_cleanly_and_the_next_pull_goes_on(registry, small_disk, factory_name):
    store = Store(small_disk / "store")
    shop = publish_app(registry, f"{factory_name}/shop", 4_000_000, 3_500_000, 3_000_000, seed=factory_name)
    with pytest.raises(StorageError, match="the file system is full"):
        pull(shop, store, client_for(registry))
    status = os.statvfs(small_disk)
    assert status.f_bavail >= 0.02 * status.f_blocks, "a device with no byte free can do little"
    assert store.list_apps() == [] and list(store.ingest.glob("*.tmp")) == []
    there = sum(path.stat().st_size for path in [*store.ingest.glob("*.part"), *store.blobs.iterdir()])
    assert there > 3_000_000
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    with FaultyProxy(registry.url) as proxy:
        app = pull(shop, store, client_for(registry, proxy.url))
        assert proxy.body_bytes <= sum(blob.descriptor.size for blob in app.blobs()) - there + 100_000
    assert is_whole(store, shop)


@pytest.mark.root
def test_a_bundle_that_has_no_room_is_refused_before_its_first_byte(registry, small_disk, factory_name):
    store = Store(small_disk / "store")
    shop = publish_app(registry, f"{factory_name}/shop", 1000, seed=factory_name, files={"data": os.urandom(9_000_000)})
    with pytest.raises(SpaceError, match="the bundle of .* has room for"):
        survey(shop, store, client_for(registry), keep=True)
    assert not store.root.exists()


def test_a_damaged_copy_in_the_registry_is_an_error_that_names_it(registry, store, shop):
    with FaultyProxy(registry.url, flip_at=100_000, only="/blobs/") as proxy, pytest.raises(
            CorruptError, match="blob sha256:.* arrived with the wrong content twice"):
        pull(shop, store, client_for(registry, proxy.url))
    assert store.list_apps() == []
    pull(shop, store, client_for(registry))
    assert is_whole(store, shop)


def test_what_is_removed_during_a_pull_is_fetched_again_before_the_app_is_visible(registry, store, shop):
    found, settled = survey(shop, store, client_for(registry)), []

    @contextlib.contextmanager
    def settling():
        if not settled:
            path = store.blob_path(found.missing[0].descriptor.digest)
            path.unlink()
            held.release(store, found.missing[0].descriptor.digest)
        settled.append(store.has_app(shop))
        yield

    fetch(found, store, client_for(registry), Progress(), settling=settling)
    assert settled == [False, False] and is_whole(store, shop)
