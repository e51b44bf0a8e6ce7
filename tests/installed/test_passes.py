# SPDX-License-Identifier: MIT
"""How often a bundle is read: counted in bytes, whatever a machine's speed is."""

import io
import json
import sys

import pytest

from composeapps.app.tree import UNREAD
from composeapps.cli import check
from composeapps.installed.install import bundle_problems, load_from_store, place_bundle
from composeapps.oci.digests import sha256
from composeapps.oci.reference import parse_pinned
from composeapps.store.store import Store
from composeapps.switching import definition
from support.device import Device


class _Counted(io.FileIO):
    """A file that adds what is read of it to ``_Counted.read_of``."""

    read_of = {}

    def _note(self, count):
        self.read_of[self.name.name] = self.read_of.get(self.name.name, 0) + (count or 0)
        return count

    def readinto(self, view):
        return self._note(super().readinto(view))

    def read(self, size=-1):
        data = super().read(size)
        self._note(len(data))
        return data


@pytest.fixture
def read_of(monkeypatch):
    """Count what is read of blobs: {hex digits: bytes}."""
    monkeypatch.setattr(_Counted, "read_of", {})
    monkeypatch.setattr(Store, "_open", lambda self, digest, _near=None: io.BufferedReader(
        _Counted(self.blob_path(digest))))
    return _Counted.read_of


@pytest.fixture
def shelf(tmp_path):
    return Device(tmp_path)


def _files(count):
    import random

    source = random.Random(count)
    return {f"d/{number % 7}/{number}": source.randbytes(2000) for number in range(count)} | {
        ".env": "A=1\n", "web.env": "B=${A}\n"}


def _publish(shelf, count=100):
    web = {"image": "web", "env_file": ["web.env"], "volumes": ["./d:/d:ro"]}
    return shelf.version({"web": web}, _files(count)).ref


def _as_a_start_does(shelf, ref):
    app = load_from_store(shelf.store, ref)
    place_bundle(app, shelf.store, shelf.config)
    return definition.from_store(app, shelf.store, shelf.config)


def test_a_start_with_nothing_to_do_reads_a_bundle_once(shelf, read_of):
    ref = _publish(shelf)
    first = _as_a_start_does(shelf, ref)
    bundle = load_from_store(shelf.store, ref).bundle
    read_of.clear()
    assert _as_a_start_does(shelf, ref) == first and first.environment["A"] == "1"
    assert read_of[bundle.digest.partition(":")[2]] == bundle.size
    assert first.services["web"].variables == {"A"}


def test_an_environment_file_that_was_not_kept_is_read_again(shelf, read_of):
    services = {"web": {"image": "web", "env_file": ["d/large.env"]}}
    text = "".join(f"K{number}=${{V{number}}}\n" for number in range(3000))
    app = shelf.version(services, {"d/large.env": text})
    read_of.clear()
    described = definition.from_store(load_from_store(shelf.store, app.ref), shelf.store, shelf.config)
    assert {"V0", "V2999"} <= described.services["web"].variables
    assert read_of[app.bundle.digest.partition(":")[2]] == 2 * app.bundle.size


def test_who_only_asks_what_an_app_is_reads_nothing_of_its_bundle(shelf, read_of):
    ref = _publish(shelf)
    app = load_from_store(shelf.store, ref)
    read_of.clear()
    light = load_from_store(shelf.store, ref, reading=UNREAD)
    assert (light.compose, light.images, light.bundle) == (app.compose, app.images, app.bundle)
    assert app.bundle.digest.partition(":")[2] not in read_of


def _without_index(shelf, ref):
    """Publish a version again, without an index of its bundle; return its Reference."""
    manifest = json.loads(shelf.store.read(ref.digest))
    del manifest["layers"][0]["annotations"]
    data = json.dumps(manifest).encode()
    shelf.store.add_blob(sha256(data), [data])
    other = parse_pinned(str(ref).replace(ref.digest, sha256(data)))
    shelf.store.add_app(load_from_store(shelf.store, other))
    return other


@pytest.mark.parametrize("change", [None, "store", "directory", "both", "note"])
def test_an_app_without_an_index_is_not_read_where_it_is_unpacked(shelf, read_of, change):
    ref = _without_index(shelf, _publish(shelf))
    app = load_from_store(shelf.store, ref)
    read_of.clear()
    assert load_from_store(shelf.store, ref, reading=UNREAD, config=shelf.config).compose == app.compose
    assert read_of.pop(app.bundle.digest.partition(":")[2])
    place_bundle(app, shelf.store, shelf.config)
    if change in ("store", "both"):
        (shelf.store.app_dir(ref) / "docker-compose.yml").write_text("services: {}\n")
    if change in ("directory", "both"):
        (shelf.directory / "docker-compose.yml").write_text("services: {}\n")
    if change == "note":
        (note,) = shelf.config.compose_root.glob(".composeapps/*/versions/*")
        note.write_text("{}")
    read_of.clear()
    assert load_from_store(shelf.store, ref, reading=UNREAD, config=shelf.config).compose == app.compose
    assert (app.bundle.digest.partition(":")[2] in read_of) == (change in ("both", "note"))


@pytest.mark.parametrize("content", [b"services: {}\n", b"", b"x" * 2_000_000, None], ids=[
    "other", "empty", "long", "gone"])
def test_a_compose_file_beside_it_that_is_another_one_is_not_taken(shelf, read_of, content):
    ref = _publish(shelf)
    app = load_from_store(shelf.store, ref)
    path = shelf.store.app_dir(ref) / "docker-compose.yml"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert load_from_store(shelf.store, ref, reading=UNREAD).compose == app.compose


def test_check_reads_a_bundle_and_what_apps_share_once(shelf, read_of, capsys):
    first, second = _publish(shelf), _publish(shelf, 60)
    for ref in (first, second):
        place_bundle(load_from_store(shelf.store, ref), shelf.store, shelf.config)
    app = load_from_store(shelf.store, first)
    (image,) = app.images.values()
    read_of.clear()
    seen, verified = set(), {}
    for ref in (first, second):
        assert check._check_app(ref, shelf.store, shelf.config, None, None, seen, verified, {}, False)["ok"]
    layers = [layer.digest.partition(":")[2] for layer in image.variants[0].document.layers]
    assert [read_of[layer] for layer in layers] == [layer.size for layer in image.variants[0].document.layers]
    assert read_of[app.bundle.digest.partition(":")[2]] == app.bundle.size
    assert bundle_problems(load_from_store(shelf.store, second), shelf.store, shelf.config) == []


def test_a_damaged_layer_that_apps_share_is_told_of_each(shelf, read_of):
    refs = [_publish(shelf), _publish(shelf, 60)]
    (image,) = load_from_store(shelf.store, refs[0]).images.values()
    layer = image.variants[0].document.layers[0]
    shelf.store.blob_path(layer.digest).write_bytes(b"y" * layer.size)
    seen, verified = set(), {}
    for ref in refs:
        found = check._check_app(ref, shelf.store, shelf.config, None, None, seen, verified, {}, False)
        assert not found["ok"] and layer.digest in found["problems"][0]


def test_each_member_is_opened_as_often_whatever_their_number(shelf):
    events, counting = [], []
    sys.addaudithook(lambda event, _arguments: events.append(event) if counting and event == "open" else None)
    counts = {}
    for number in (50, 500):
        ref = _publish(shelf, number)
        _as_a_start_does(shelf, ref)
        counting.append(True)
        _as_a_start_does(shelf, ref)
        counting.clear()
        counts[number], events[:] = len(events), []
    assert counts[500] < 10 * counts[50]
