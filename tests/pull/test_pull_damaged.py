# SPDX-License-Identifier: MIT
"""What a pull keeps of answers that are not the blob, and how often it goes on asking."""

import json
import time

import pytest

from composeapps.errors import CorruptError, RegistryError
from composeapps.oci.digests import sha256
from composeapps.store import damaged, held, partial
from composeapps.store.store import Store
from support.faults import FaultyProxy
from support.pulls import Notes, client_for, is_whole, layers, publish_app, pull
from support.scripted import Scripted, reply


@pytest.fixture(scope="module")
def shop(registry):
    return publish_app(registry, "damaged/shop", 400_000, seed="damaged")


@pytest.fixture
def store(memory):
    return Store(memory / "store")


@pytest.fixture
def layer(registry, shop, memory):
    """The app's only large layer: its descriptor and its bytes."""
    source = Store(memory / "source")
    descriptor = layers(pull(shop, source, client_for(registry)))[0]
    return descriptor, source.blob_path(descriptor.digest).read_bytes()


def spoiled(registry, layer, answer):
    """Return a Scripted that passes on what the registry has, but answers for the layer by ``answer``."""
    import http.client

    def serve(request):
        if layer[0].digest in request.target:
            return answer(request)
        upstream = http.client.HTTPConnection(registry.address)
        upstream.request("GET", request.target, headers={"Accept": request.headers.get("accept", "*/*")})
        got = upstream.getresponse()
        return reply(got.status, got.read(), ("Content-Type", got.headers.get("Content-Type", "")))

    return Scripted(serve)


def kept(store):
    """Return what is kept of blobs that are not whole."""
    found = [path.suffix for path in store.ingest.iterdir()] if store.ingest.exists() else []
    return sorted(suffix.lstrip(".") for suffix in found if suffix != held.SUFFIX)


def test_a_blob_that_arrives_damaged_is_asked_for_less_and_less(registry, shop, store, layer, monkeypatch):
    digest = layer[0].digest
    with FaultyProxy(registry.url, flip_at=100_000, only=digest) as proxy:
        client = client_for(registry, proxy.url)
        for _run in range(2):
            with pytest.raises(CorruptError, match="arrived with the wrong content twice"):
                pull(shop, store, client)
        asked = sum(digest in path for path in proxy.paths)
        with pytest.raises(CorruptError, match="arrived damaged 4 times, and is tried again in 5 min: .* remove /"):
            pull(shop, Store(store.root), client)
        assert sum(digest in path for path in proxy.paths) == asked, "nothing is fetched while it waits"
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 301)
        with pytest.raises(CorruptError, match="twice"):
            pull(shop, store, client)
        with pytest.raises(CorruptError, match="damaged 6 times, and is tried again in 20 min"):
            pull(shop, store, client)
    # Whoever has mended it need not wait, and a whole blob ends it.
    damaged.path_of(store, digest).unlink()
    pull(shop, store, client_for(registry))
    assert is_whole(store, shop) and kept(store) == []


def test_a_registry_that_was_mended_is_believed_at_once(registry, shop, store, layer):
    with FaultyProxy(registry.url, flip_at=100_000, only=layer[0].digest) as proxy, pytest.raises(CorruptError):
        pull(shop, store, client_for(registry, proxy.url))
    assert kept(store) == ["damaged"]
    pull(shop, store, client_for(registry))
    assert is_whole(store, shop) and kept(store) == []


@pytest.mark.parametrize("record", [
    b"", b"[]", b'{"times": 1e999, "last": 0}', b'{"times": 9}', b'{"times": 99, "last": 9999999999}', b"\xff",
    b"[" * 9999])
def test_a_record_that_says_nothing_of_use_is_no_obstacle(store, record):
    """The clock may have been ahead when it was written: then it says nothing about the time that passed."""
    digest = sha256(b"x")
    store.ingest.mkdir(parents=True)
    damaged.path_of(store, digest).write_bytes(record)
    damaged.check(store, digest, "it")
    damaged.note(store, digest)
    assert json.loads(damaged.path_of(store, digest).read_text())["times"] >= 1


def test_old_records_go(store):
    digest, other = sha256(b"x"), sha256(b"y")
    for each in (digest, other):
        damaged.note(store, each)
    store.add_blob(digest, [b"x"])
    partial.collect(store, [], "shop")
    assert not damaged.path_of(store, digest).exists() and damaged.path_of(store, other).exists()


def test_416_starts_over(registry, shop, store, layer):
    descriptor, data = layer
    store.ingest.mkdir(parents=True)
    path = partial.path_of(store, descriptor.digest)
    path.write_bytes(b"other" * 1000)
    path.with_suffix(partial.MARK_SUFFIX).write_text(
        json.dumps({"boot": partial.boot_id(), "synced": 0, "app": "shop"}))
    progress = Notes()

    def answer(request):
        return reply(416) if "range" in request.headers else reply(200, data)

    with spoiled(registry, layer, answer) as hub:
        pull(shop, store, client_for(registry, hub.url), progress)
        asked = [request.headers.get("range") for request in hub.requests if descriptor.digest in request.target]
    assert asked == ["bytes=5000-", None] and progress.received[descriptor.digest] == descriptor.size
    assert is_whole(store, shop)


def test_a_registry_that_always_answers_416_is_given_up(registry, shop, store, layer):
    def answer(request):
        return reply(416) if "range" in request.headers else reply(200, layer[1][:9000], length=len(layer[1]))

    with spoiled(registry, layer, answer) as hub, pytest.raises(CorruptError, match="fewer bytes in the registry"):
        pull(shop, store, client_for(registry, hub.url))


@pytest.mark.parametrize(("answer", "error", "says"), [
    (reply(200, b"<html>" * 999, ("Content-Type", "text/html")), RegistryError, "captive portal"),
    (reply(200, b"x" * 999), CorruptError, "has 999 bytes in the registry"),
    (reply(200, b"x" * 999_999), CorruptError, "has 999999 bytes in the registry"),
    (reply(302, b"", ("Location", "http://portal.invalid/")), RegistryError, "cannot be reached"),
], ids=["page", "short", "long", "redirect"])
def test_what_cannot_be_the_blob_leaves_no_partial(registry, shop, store, layer, answer, error, says):
    with spoiled(registry, layer, lambda _request: answer) as hub, pytest.raises(error, match=says):
        pull(shop, store, client_for(registry, hub.url))
    assert "part" not in kept(store)
    pull(shop, store, client_for(registry))
    assert is_whole(store, shop)


def test_a_few_bytes_a_try_are_no_progress(registry, shop, store, layer):
    def answer(request):
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        size = len(layer[1])
        return reply(206, layer[1][start:start + 9], ("Content-Range", f"bytes {start}-{size - 1}/{size}"),
                     length=size - start) if start else reply(200, layer[1][:9], length=size)

    with spoiled(registry, layer, answer) as hub:
        with pytest.raises(RegistryError, match="gave up after 4 tries"):
            pull(shop, store, client_for(registry, hub.url))
        assert len([request for request in hub.requests if layer[0].digest in request.target]) == 4


def test_what_nobody_expected_of_the_disk_is_no_success(registry, shop, store, monkeypatch):
    def fail(self):
        raise ValueError("what nobody expected")

    monkeypatch.setattr(partial.Partial, "finish", fail)
    with pytest.raises(ValueError, match="nobody expected"):
        pull(shop, store, client_for(registry))
    assert store.list_apps() == []
