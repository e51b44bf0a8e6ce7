# SPDX-License-Identifier: MIT
"""Pruning and removal: what nobody needs goes, and nothing else, whatever is broken and wherever it is cut off."""

import json
import os
import re
import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest

from composeapps.app.tree import StoreSource, load_app
from composeapps.cli.config import Config
from composeapps.cli.main import main
from composeapps.errors import NotFoundError
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal
from composeapps.records.state import AppState, StateDirectory
from composeapps.space.prune import protected, prune
from composeapps.space.removal import remove, remove_app
from composeapps.store import appdir, held
from composeapps.store.preload import copy_app
from composeapps.store.store import Store
from support import apps, stores
from support.images import make_image, multi_platform, sha256

AMD64 = [Platform("linux", "amd64")]


class Cut(BaseException):
    """The power is gone."""


class NoEngine:
    """A dockerd that has nothing."""

    def images(self):
        return []

    def image(self, _name):
        return None

    def containers(self, _label=None):
        return []

    networks = volumes = containers

    def data_root(self):
        return "/nonexistent"


@pytest.fixture
def device(memory):
    """A device without a dockerd; ``add`` writes a version of an app into its store and returns its reference."""
    config = Config(store=memory / "store", compose_root=memory / "compose", state_dir=memory / "state",
                    factory_file=memory / "factory.json", factory_store=memory / "factory")
    options = ["--store", str(config.store), "--compose-root", str(config.compose_root), "--state-dir",
               str(config.state_dir), "--docker-host", f"unix://{memory}/no.sock"]
    (memory / "config.toml").write_text(f'[composeapps]\nfactory_file = "{config.factory_file}"\n'
                                          f'factory_store = "{config.factory_store}"\n')
    options += ["--config", str(memory / "config.toml")]

    def add(name, *texts, shared="shared", writer=stores.COMPOSECTL, root=config.store, platforms=("linux/amd64",)):
        """Each text makes an image of its own; ``shared`` one that others may have too."""
        images = {f"s{number}": multi_platform(text) for number, text in enumerate((*texts, shared))}
        pinned = {service: f"hub.demo.test/f/{service}@{image.digest}" for service, image in images.items()}
        compose = apps.compose_text(pinned)
        app = apps.make_app(compose, {"of": f"{name} {texts}"}, images.values())
        return stores.write(root, f"hub.demo.test/f/{name}", app, {pinned[s]: i for s, i in images.items()}, writer,
                            platforms, compose)

    store, states = Store(config.store), StateDirectory(config.state_dir)

    def installed(name, uri, previous=""):
        states.put(name, AppState(uri, previous=previous))

    def whole(uri):
        app = load_app(StoreSource(store), parse_pinned(uri), AMD64)
        assert [problem for blob in app.blobs() if (problem := store.verify(blob.descriptor.digest))] == []
        assert appdir.problems(store, app) == []
        return app

    return SimpleNamespace(config=config, store=store, states=states, add=add, installed=installed, whole=whole,
                           options=options, prune=lambda **more: prune(store, states, config, None, **more))


def _factory(device, *uris):
    names = {parse_pinned(uri).app_name: uri for uri in uris}
    device.config.factory_file.write_text(json.dumps({"apps": names}))


def _uris(store):
    return {str(ref) for ref in store.list_apps()}


def _damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.chmod(0o644)
    path.write_bytes(data)


def _used(root):
    """Return the bytes that the files below a directory take, each inode once."""
    status = {(s.st_dev, s.st_ino): s.st_blocks * 512 for s in (path.lstat() for path in root.rglob("*"))}
    return sum(status.values())


def test_each_reason_keeps_its_version_and_the_rest_goes(device):
    v1, v2, v3, v4 = (device.add("shop", f"shop{n}") for n in range(4))
    factory, wanted, target = device.add("base", "base"), device.add("soon", "soon"), device.add("new", "new")
    other = device.add("blog", "blog")
    device.installed("shop", v3, previous=v2)
    _factory(device, factory)
    journal.write(device.states, journal.new("new", "", target))
    config = device.config._replace(apps=("soon", "new"))
    report = prune(device.store, device.states, config, None)
    assert set(report.apps) == {v1, v4, other}
    assert set(report.kept) == {v2, v3, factory, wanted, target}
    assert protected(device.store, device.states, config) == set(report.kept) == _uris(device.store)
    for uri in report.kept:
        device.whole(uri)
    assert len({report.kept[uri] for uri in (v2, v3, factory, wanted, target)}) == 5


def _unpack(device, uri):
    ref = parse_pinned(uri)
    place = device.config.compose_root / ref.app_name
    place.mkdir(parents=True, exist_ok=True)
    (place / "docker-compose.yml").write_bytes(load_app(StoreSource(device.store), ref, AMD64).compose)
    return place / "docker-compose.yml"


@pytest.mark.parametrize("writer", [stores.COMPOSECTL, stores.UPDATE, stores.SKOPEO])
def test_what_composectl_has_unpacked_is_installed(device, writer):
    old, new = device.add("shop", "1", writer=writer), device.add("shop", "2", writer=writer)
    nested, other = device.add("a/shop", "3", writer=writer), device.add("blog", "4", writer=writer)
    _unpack(device, new)
    _unpack(device, nested)
    report = device.prune()
    assert (set(report.apps), report.problems) == ({old, other}, [])
    assert set(report.kept) == _uris(device.store) == {new, nested}
    load_app(StoreSource(device.store), parse_pinned(new), AMD64)
    remove_app("shop", device.store, device.states, device.config, NoEngine())
    assert _uris(device.store) == {nested}


def test_a_bundle_that_was_changed_keeps_all_versions_that_it_may_be_of(device):
    uris = {device.add("shop", text) for text in "12"}
    compose = _unpack(device, next(iter(uris)))
    for spoil in (lambda: compose.write_text("services: {}"), lambda: (compose.unlink(), os.mkfifo(compose)),
                  lambda: (compose.unlink(), compose.symlink_to("/etc/passwd"))):
        spoil()
        assert device.prune().apps == [] and _uris(device.store) == uris
    compose.unlink()
    # Data may be left there, and nothing that runs.
    assert set(device.prune().apps) == uris


def test_the_record_counts_where_a_bundle_tells_nothing(device):
    old, new = device.add("shop", "1"), device.add("shop", "2")
    device.installed("shop", new)
    _unpack(device, new).write_text("services: {}")
    assert device.prune().apps == [old]


def _begin(device, reference, age=0):
    """Leave what containerd's content store leaves of a blob that it has begun to write."""
    place = device.config.store / "ingest" / sha256(reference.encode())[7:]
    place.mkdir()
    (place / "ref").write_text(reference)
    (place / "data").write_bytes(b"x" * 1000)
    os.utime(place / "data", (time.time() - age, time.time() - age))
    return place


def test_a_pull_of_composectl_that_was_cut_off_can_be_gone_on_with(device):
    begun = device.add("shop", "1", shared="one", writer=stores.UPDATE)
    layers = _blobs_of(device, begun)
    place = _begin(device, "hub.demo.test/f/s0@" + "sha256:" + layers["layer"].name)
    layers["layer"].unlink()
    shutil.rmtree(device.config.store / "apps")
    device.store.add_blob(sha256(b"nobody's"), [b"nobody's"])
    before = set(stores.files(device.config.store))
    report = device.prune()
    assert (report.blobs, report.partials, report.problems) == (1, 0, [])
    assert len(before) - len(stores.files(device.config.store)) == 1
    shutil.rmtree(place)
    _begin(device, "hub.demo.test/f/s0@sha256:x", 8 * 24 * 3600)
    device.prune()
    assert stores.files(device.config.store) == {}


@pytest.mark.parametrize(("state", "kept"), [("fetching", True), ("installed", True), ("completed", False),
                                             ("failed", False), ("canceled", False)])
def test_an_update_of_composectl_keeps_what_it_has_until_it_is_at_its_end(device, state, kept):
    uri = device.add("shop", "1", writer=stores.UPDATE)
    stray = sha256(b"a layer of it")
    device.store.add_blob(stray, [b"a layer of it"])
    shutil.rmtree(device.config.store / "apps")
    before = set(stores.files(device.config.store))
    record = {"id": "01" * 13, "client_ref": "", "state": f"update:state:{state}",
              "update_time": "2026-02-01T00:00:00Z",
              "uris": [uri], "blobs": {stray: {}}}
    # A page that was written before is still there, free.
    old = {**record, "state": "update:state:fetching", "update_time": "2026-01-01T00:00:00Z"}
    pages = (b"key" + json.dumps(each, separators=(",", ":")).encode() for each in (record, old))
    (device.config.store / "updates.db").write_bytes(b"".join(page.ljust(4096, b"\0") for page in pages))
    report = device.prune()
    assert report.problems == []
    assert (before <= set(stores.files(device.config.store))) == kept
    assert (report.blobs == 0) == kept
    for damage in (b"", b'{"id":"' + b"0" * 26 + b'","client_ref":[' * 5000, os.urandom(5000)):
        (device.config.store / "updates.db").write_bytes(damage)
        device.prune()


def test_the_shortlist_does_not_keep_old_versions_nor_drop_installed_apps(device):
    old, new, outside = device.add("shop", "1"), device.add("shop", "2"), device.add("blog", "1")
    device.installed("shop", new)
    device.installed("blog", outside)
    config = device.config._replace(apps=("shop",))
    assert prune(device.store, device.states, config, None).apps == [old]


def test_what_apps_share_is_counted_once_and_stays_while_one_needs_it(device):
    one, two = device.add("shop", "1"), device.add("blog", "2")
    device.installed("blog", two)
    before = _used(device.config.store)
    planned = device.prune(dry_run=True)
    assert _uris(device.store) == {one, two} and _used(device.config.store) == before
    report = device.prune()
    assert report.dump() == planned.dump()
    # Of shop: manifest, bundle, its index, layers-meta; of its own image: index, manifest, config, layer.
    assert report.blobs == 8
    # The directory apps/shop went besides.
    assert 0 <= before - _used(device.config.store) - report.bytes <= 4096
    device.whole(two)


def test_a_blob_that_a_factory_store_shares_frees_nothing(device):
    uri = device.add("shop", "1")
    copy_app(device.store, Store(device.config.factory_store), parse_pinned(uri), link=True)
    alone = device.prune(dry_run=True).bytes
    shutil.rmtree(device.config.factory_store)
    assert device.prune().bytes > alone + 8 * 512


def test_leftovers_of_killed_writers_go(device):
    uri = device.add("shop", "1")
    device.installed("shop", uri)
    half = device.config.store / "apps" / "blog" / ("5" * 64)
    half.mkdir(parents=True)
    (half / "manifest.json").write_text("{}")
    ingest = device.config.store / "ingest"
    (ingest / f"{'7' * 64}.part").write_bytes(b"x" * 5000)
    (ingest / "8").mkdir()
    (ingest / "8" / "data").write_bytes(b"y")
    device.store.app_dir(parse_pinned(uri)).joinpath(".tmp-uri-1").write_text("")
    device.store.add_blob(sha256(b"nobody's"), [b"nobody's"])
    report = device.prune()
    assert (len(report.apps), report.blobs, report.partials, report.problems) == (1, 1, 2, [])
    assert not half.parent.exists() and not any(ingest.iterdir())
    assert not list(device.config.store.rglob(".tmp-*"))
    device.whole(uri)


def test_a_blob_goes_with_its_second_name_and_is_counted(device):
    uri, gone = device.add("shop", "1"), device.add("shop", "2")
    device.installed("shop", uri)
    alone = device.prune(dry_run=True).bytes
    for path in device.store.blobs.iterdir():
        held.hold(device.store, f"sha256:{path.name}")
    report = device.prune()
    assert report.apps == [gone] and report.bytes == alone
    assert {path.name[:64] for path in device.store.ingest.iterdir()} == {
        path.name for path in device.store.blobs.iterdir()}


def test_an_update_that_is_being_fetched_keeps_what_it_has(device):
    uri, target = device.add("shop", "1"), device.add("shop", "2")
    device.installed("shop", uri)
    journal.write(device.states, journal.new("shop", uri, target))
    # The app's directory is written last, and some blobs are not there yet.
    shutil.rmtree(device.store.app_dir(parse_pinned(target)))
    (device.config.store / "ingest" / f"{'7' * 64}.part").write_bytes(b"x")
    before = stores.files(device.config.store)
    device.prune()
    assert stores.files(device.config.store) == before
    device.store.blob_path(parse_pinned(target).digest).unlink()
    before = stores.files(device.config.store)
    assert device.prune().problems
    assert stores.files(device.config.store) == before


def _blobs_of(device, uri):
    app = device.whole(uri)
    image = next(iter(app.images.values()))
    kinds = {"manifest": app.ref.digest, "bundle": app.bundle.digest, "layers-meta": app.layers_meta.digest,
             "image index": image.root.digest, "image manifest": image.variants[0].descriptor.digest,
             "image config": image.variants[0].document.config.digest,
             "layer": image.variants[0].document.layers[0].digest}
    return {kind: device.store.blob_path(digest) for kind, digest in kinds.items()}


@pytest.mark.parametrize("how", ["flipped", "missing"])
@pytest.mark.parametrize("kind", ["manifest", "bundle", "layers-meta", "image index", "image manifest", "image config",
                                  "layer", "compose", "index.json", "uri", "state"])
def test_one_broken_app_loses_nothing_and_keeps_nothing_else_from_being_pruned(device, kind, how):
    broken, whole = device.add("shop", "1", shared="one"), device.add("blog", "2", shared="two")
    gone = device.add("old", "3", shared="three")
    device.installed("shop", broken)
    device.installed("blog", whole)
    home = device.store.app_dir(parse_pinned(broken))
    places = {**_blobs_of(device, broken), "compose": home / "docker-compose.yml", "uri": home / "uri",
              "index.json": next(home.glob("images/**/index.json")),
              "state": device.config.state_dir / "apps" / "shop.json"}
    if how == "flipped":
        _damage(places[kind])
    else:
        places[kind].unlink()
        if kind == "manifest":
            (home / "manifest.json").unlink()
        if kind == "bundle":
            next(home.glob("*.tgz")).unlink()
    before = set(stores.files(device.config.store))
    report = device.prune()
    left = set(stores.files(device.config.store))
    lost = {path for path in before - left if not path.startswith(f"apps/old/{parse_pinned(gone).hex}/")}
    names = {f"blobs/sha256/{path.name}" for path in _blobs_named_only_by(device, gone).values()}
    assert lost <= names
    assert not device.store.app_dir(parse_pinned(gone)).exists()
    device.whole(whole)
    if lost != names:
        assert any("shop" in problem for problem in report.problems)


def _blobs_named_only_by(device, uri):
    """Return the blobs of app "old", found in a store that has nothing else."""
    alone = Store(device.config.store.with_name("alone"))
    device.add("old", "3", shared="three", root=alone.root)
    return {path.name: device.store.blobs / path.name for path in alone.blobs.iterdir()}


@pytest.mark.parametrize("kind", ["manifest", "image manifest", "image config"])
def test_layers_go_although_a_document_of_another_app_is_damaged(device, kind):
    """With the layers-meta whole, and the images' manifests listed, only documents can be unknown."""
    broken, gone = device.add("shop", "1", shared="one"), device.add("old", "3", shared="three")
    device.installed("shop", broken)
    _damage(_blobs_of(device, broken)[kind])
    layer = _blobs_of(device, gone)["layer"]
    device.prune()
    assert not layer.exists()


def test_a_document_that_the_factory_store_has_whole_makes_up_for_a_damaged_one(device):
    broken, gone = device.add("shop", "1", shared="one"), device.add("old", "3", shared="three")
    device.installed("shop", broken)
    copy_app(device.store, Store(device.config.factory_store), parse_pinned(broken))
    _damage(_blobs_of(device, broken)["image manifest"])
    names = _blobs_named_only_by(device, gone).values()
    assert device.prune().problems == []
    assert not any(path.exists() for path in names)


def test_without_the_list_of_preloaded_apps_none_is_lost(device):
    uri = device.add("shop", "1")
    _factory(device, uri)
    device.config.factory_file.write_text("{")
    report = device.prune()
    assert (report.apps, report.blobs) == ([], 0) and report.problems
    # The factory store tells them as well.
    copy_app(device.store, Store(device.config.factory_store), parse_pinned(uri))
    old = device.add("shop", "2")
    assert device.prune().apps == [old]


def _cut_after(monkeypatch, count):
    """Let that many changes of a file system's names happen, then fail for ever."""
    left = [count]

    def limited(function):
        def call(*args, **kwargs):
            if left[0] <= 0:
                raise Cut
            left[0] -= 1
            return function(*args, **kwargs)
        return call

    for name in ("unlink", "rmdir", "rename", "fsync"):
        monkeypatch.setattr(os, name, limited(getattr(os, name)))
    return left


def _until_done(monkeypatch, action, check):
    """Cut an action off after 0, 1, 2 … changes, and ``check`` each time; return how many it takes."""
    for count in range(500):
        with monkeypatch.context() as patch:
            _cut_after(patch, count)
            try:
                action()
                return count
            except Cut:
                pass
        check()
    raise AssertionError("it does not end")


def _copy(device, place):
    """Have a fresh copy of what ``place`` was like at first."""
    for directory in (device.config.store, device.config.state_dir, device.config.compose_root):
        shutil.rmtree(directory, ignore_errors=True)
        if (place / directory.name).exists():
            shutil.copytree(place / directory.name, directory, symlinks=True)


def test_pruning_cut_off_at_any_change_leaves_whole_apps_and_is_finished_by_the_next(device, tmp_path, monkeypatch):
    kept, old = device.add("shop", "1"), device.add("shop", "2")
    device.installed("shop", kept)
    place = tmp_path / "copy"
    for directory in (device.config.store, device.config.state_dir):
        shutil.copytree(directory, place / directory.name)
    device.prune()
    final = {path: content for path, (_inode, _time, content) in stores.files(device.config.store).items()}
    _copy(device, place)

    def check():
        assert kept in _uris(device.store)
        for uri in _uris(device.store):
            device.whole(uri)
        device.prune()
        assert {p: content for p, (_i, _t, content) in stores.files(device.config.store).items()} == final
        _copy(device, place)

    assert _until_done(monkeypatch, device.prune, check) > 15
    assert old not in _uris(device.store)


def test_a_removal_cut_off_at_any_change_is_finished_by_the_next(device, tmp_path, monkeypatch):
    kept, doomed = device.add("blog", shared="1"), device.add("shop", shared="2")
    older = device.add("shop", shared="1")
    device.installed("blog", kept)
    device.installed("shop", doomed, previous=older)
    journal.write(device.states, journal.new("shop", older, doomed))
    bundle = device.config.compose_root / "shop"
    bundle.mkdir(parents=True)
    (bundle / "docker-compose.yml").write_text("services: {}\n")
    (device.config.compose_root / "blog").mkdir()
    device.states.write_override("shop", {})
    # Fetched in advance: the removal of another app is no reason to lose it.
    waiting = device.add("soon", shared="4")
    place = tmp_path / "copy"
    for directory in (device.config.store, device.config.state_dir, device.config.compose_root):
        shutil.copytree(directory, place / directory.name)

    def remove():
        remove_app("shop", device.store, device.states, device.config, NoEngine())

    def check(again=True):
        for uri in (kept, waiting, *_uris(device.store)):
            device.whole(uri)
        if again:
            # Once it has begun, the app is not started any more.
            begun = "shop" in device.states.removals()
            assert begun or bool(device.states.get("shop")) == bundle.exists()
            if begun or bundle.exists():
                remove()
            check(again=False)
            _copy(device, place)
            return
        assert _uris(device.store) == {kept, waiting}
        assert device.states.names() == ["blog"] and not device.states.removals()
        assert not bundle.exists() and (device.config.compose_root / "blog").exists()
        assert journal.pending(device.states) == []
        left = {path.name for path in device.store.blobs.iterdir()}
        assert left == {blob.descriptor.digest[7:] for uri in (kept, waiting) for blob in device.whole(uri).blobs()}

    assert _until_done(monkeypatch, remove, check) > 25
    check(again=False)
    with pytest.raises(Exception, match="is not on this device; its apps: blog, soon"):
        remove()


def test_of_several_apps_that_are_removed_one_that_fails_keeps_no_other(device):
    shop, blog, wiki = (device.add(name, name, shared=shared) for name, shared in (
        ("shop", "both"), ("blog", "both"), ("wiki", "wiki")))
    kept = device.add("soon", "soon", shared="wiki")
    for name, uri in (("shop", shop), ("blog", blog)):
        device.installed(name, uri)
    found = dict(remove(["shop", "nothing", "blog", wiki, kept.replace("soon@", "later@")], device.store, device.states,
                        device.config, NoEngine()))
    assert list(map(str, found)) == ["shop", "nothing", "blog", wiki, kept.replace("soon@", "later@")]
    assert isinstance(found["nothing"], NotFoundError) and isinstance(list(found.values())[-1], NotFoundError)
    assert [found[name][0].apps for name in ("shop", "blog", wiki)] == [[shop], [blog], [wiki]]
    # What the first two share went with the second one, what the third has in common with another one stays.
    assert found["shop"][0].blobs < found["blog"][0].blobs and _uris(device.store) == {kept}
    assert {path.name for path in device.store.blobs.iterdir()} == {
        blob.descriptor.digest[7:] for blob in device.whole(kept).blobs()}
    assert device.states.names() == [] and device.states.removals() == {}


def test_a_preloaded_app_that_is_removed_stays_away_and_can_come_back(device):
    factory, newer = device.add("shop", "1"), device.add("shop", "2")
    _factory(device, factory)
    device.installed("shop", newer, previous=factory)
    report, _gone = remove_app("shop", device.store, device.states, device.config, NoEngine())
    assert report.apps == [newer] and _uris(device.store) == {factory}
    device.whole(factory)
    assert device.states.removals() == {"shop": {}} and device.prune().apps == []
    with pytest.raises(Exception, match="is removed already.*'composeapps run shop' brings it back"):
        remove_app("shop", device.store, device.states, device.config, NoEngine())
    device.installed("shop", factory)
    assert device.states.removals() == {}


def test_the_command_says_what_it_would_do_and_what_it_kept(device, capsys):
    kept, old = device.add("shop", "1"), device.add("shop", "2")
    device.installed("shop", kept)
    assert main([*device.options, "prune", "--dry-run", "--json"]) == 6
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["apps"], report["kept"], report["dry_run"]) == ([old], {kept: "installed"}, True)
    assert "cannot be reached" in captured.err
    assert main([*device.options, "prune", "--keep", old]) == 6
    assert f"{old} stays: asked for" in capsys.readouterr().out and old in _uris(device.store)
    assert main([*device.options, "rm", kept]) == 2
    assert f"{kept} is needed (installed)" in capsys.readouterr().err
    assert main([*device.options, "rm", "nothing"]) == 3


def test_a_single_image_app_counts_its_own_platforms(device):
    """Blobs for another platform that somebody fetched into the store belong to the app as well."""
    uri = device.add("shop", "1", platforms=("linux/amd64", "linux/arm64"))
    device.installed("shop", uri)
    assert device.prune().blobs == 0
    assert make_image().digest not in {f"sha256:{path.name}" for path in device.store.blobs.iterdir()}


def test_the_data_of_one_app_is_no_other_app(device):
    shop = device.add("shop", shared="2")
    device.installed("shop", shop)
    victim = device.config.compose_root / "shop/data/docker-compose.yml"
    victim.parent.mkdir(parents=True)
    victim.write_text("mine")
    with pytest.raises(NotFoundError, match="app 'shop/data' is not on this device"):
        remove_app("shop/data", device.store, device.states, device.config, NoEngine())
    assert victim.read_text() == "mine"
    remove_app("shop", device.store, device.states, device.config, NoEngine())
    assert (device.config.compose_root / ".kept/shop/data/docker-compose.yml").read_text() == "mine"


def test_what_removals_set_aside_is_told_with_its_size_and_stays(device, capsys):
    uri = device.add("shop", "1")
    device.installed("shop", uri)
    directory = device.config.compose_root / "shop"
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "orders").write_bytes(b"7" * 50_000)
    (directory / "data" / "away").symlink_to("/usr")
    kept = device.config.compose_root / ".kept"
    assert main([*device.options, "prune"]) == 6 and str(kept) not in capsys.readouterr().out
    remove_app("shop", device.store, device.states, device.config, NoEngine())
    for words in (["prune"], ["prune", "--dry-run"]):
        assert main([*device.options, *words]) == 6
        (line,) = [each for each in capsys.readouterr().out.splitlines() if str(kept) in each]
        assert re.match(rf"{kept} holds [56]\d\.\d k?B that 1 removals set aside: .*'rm -r {kept}/NAME'$", line), line
    assert main([*device.options, "prune", "--json"]) == 6
    found = json.loads(capsys.readouterr().out)["set_aside"]
    # What a link leads to does not count.
    assert (found["path"], found["entries"], found["complete"]) == (str(kept), 1, True)
    assert 50_000 <= found["bytes"] < 100_000 and (kept / "shop" / "data" / "orders").exists()


def test_what_a_container_nested_too_deep_to_look_at_is_no_error(device, capsys):
    device.add("shop", "1")
    deep = device.config.compose_root / ".kept" / "shop"
    deep.mkdir(parents=True)
    top = os.open(deep, os.O_RDONLY)
    try:
        for _ in range(3000):
            os.mkdir("d", dir_fd=top)
            below = os.open("d", os.O_RDONLY, dir_fd=top)
            os.close(top)
            top = below
    finally:
        os.close(top)
    assert main([*device.options, "prune", "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["set_aside"]["entries"] == 1
    subprocess.run(["rm", "-rf", deep], check=True)
