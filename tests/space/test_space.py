# SPDX-License-Identifier: MIT
"""The room that an app needs is known before its first byte, and a disk that fills up all the same is got over."""

import contextlib
import json
import os
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest

import moby.build
from composeapps.app.tree import StoreSource, load_app
from composeapps.cli.config import Config
from composeapps.cli.main import main
from composeapps.engine import loading
from composeapps.engine.client import Engine
from composeapps.errors import SpaceError
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse_pinned
from composeapps.records.state import AppState, StateDirectory
from composeapps.space import check as space
from composeapps.store.store import Store
from support import apps, stores
from support.engine import DockerDaemon
from support.images import make_image, push_image, tar

pytestmark = pytest.mark.root

AMD64 = [Platform("linux", "amd64")]
MB = 1024 * 1024


def _images(**contents):
    """Return {service: Image} with a layer each of that many random bytes, above one that all have."""
    base = tar({"base": b"b" * 50_000})
    return {name: make_image(layers=[base, tar({"data": os.urandom(size)})]) for name, size in contents.items()}


def _write(root, name, images, measured=True):
    """Write a store with an app; return its App."""
    pinned = {service: f"hub.demo.test/f/{service}@{image.digest}" for service, image in images.items()}
    compose = apps.compose_text(pinned)
    app = apps.make_app(compose, {"site.conf": "x" * 5000}, images.values())
    app = stores.without(app, layers_meta=not measured)
    uri = stores.write(root, f"hub.demo.test/f/{name}", app, {pinned[s]: image for s, image in images.items()},
                       compose=compose)
    return load_app(StoreSource(Store(root)), parse_pinned(uri), AMD64)


@pytest.fixture
def disk(tmp_path):
    """Return a function that makes an ext4 of some MB, mounts it at a place and returns that."""
    with contextlib.ExitStack() as stack:
        def make(size, place):
            image = tmp_path / f"{place.name}.img"
            with open(image, "wb") as stream:
                stream.truncate(size * MB)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "1", image], check=True)
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-o", "loop", image, place], check=True)
            stack.callback(subprocess.run, ["umount", place], check=True)
            return place

        yield make


def _fill(place, leave):
    """Write a file until the file system of ``place`` has ``leave`` bytes left, or takes no more even from root."""
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as stream:
        for piece in (MB, 4096):
            with contextlib.suppress(OSError):
                while (left := _free(place) - leave) > 0:
                    stream.write(b"f" * min(left, piece))
        os.fsync(stream.fileno())
    return filler


def _free(place):
    status = os.statvfs(place)
    return status.f_bfree * status.f_frsize


def _config(root, **more):
    return Config(store=root / "store", state_dir=root / "state", compose_root=root / "compose",
                  factory_file=root / "none.json", factory_store=root / "none", **more)


def _empty(app, into):
    """Return the Blobs that another, empty store lacks of an app, and that Store."""
    return tuple(app.blobs()), Store(into)


def test_what_the_store_gets_is_what_it_takes(disk, tmp_path):
    app = _write(tmp_path / "source", "shop", _images(a=300_000, b=200_000))
    place = disk(16, tmp_path / "disk")
    missing, store = _empty(app, place / "store")
    need, = space.needs(app, missing, store, None, _config(place))
    assert (need.path, need.estimated, need.enough) == (place, False, True)
    os.sync()
    before = _free(place)
    for blob in missing:
        data = (tmp_path / "source" / "blobs" / "sha256" / blob.descriptor.digest[7:]).read_bytes()
        store.add_blob(blob.descriptor.digest, [data])
    store.add_app(load_app(StoreSource(store), app.ref, AMD64))
    os.sync()
    assert 0.85 < (before - _free(place)) / need.needed <= 1
    # With all of it there nothing more is needed.
    assert space.needs(app, (), store, None, _config(place))[0].needed == 0


def test_a_partial_download_counts_for_what_is_missing_of_it(tmp_path):
    app = _write(tmp_path / "source", "shop", _images(a=300_000))
    missing, store = _empty(app, tmp_path / "store")
    before = space.needs(app, missing, store, None, _config(tmp_path))[0].needed
    layer = max(missing, key=lambda blob: blob.descriptor.size).descriptor
    store.ingest.mkdir(parents=True)
    (store.ingest / f"{layer.digest[7:]}.part").write_bytes(os.urandom(200 * 1024))
    assert before - space.needs(app, missing, store, None, _config(tmp_path))[0].needed == 200 * 1024


def test_what_apps_share_counts_once(tmp_path):
    images = _images(a=100_000, b=100_000)
    one, two = (_write(tmp_path / "source", name, images) for name in ("shop", "blog"))
    missing, store = _empty(one, tmp_path / "store")
    config = _config(tmp_path)
    alone = space.needs(one, missing, store, None, config)[0].needed
    both = space.needs_of_all([space.Wanted(app, tuple(app.blobs()), {}) for app in (one, two)], store, None, config)
    assert alone < both[0].needed < alone + 100_000


def test_the_watermark_is_what_df_would_show(disk, tmp_path):
    app = _write(tmp_path / "source", "shop", _images(a=4 * MB))
    place = disk(32, tmp_path / "disk")
    missing, store = _empty(app, place / "store")
    _fill(place, 16 * MB)
    shown = subprocess.run(["df", "--output=used,avail,pcent", "--block-size=1", place], check=True,
                           capture_output=True, text=True).stdout.split()[3:]
    used, available, percent = (int(text.rstrip("%")) for text in shown)
    need, = space.needs(app, missing, store, None, _config(place))
    assert (need.used, need.free) == (used, available)
    for watermark in range(percent, 96):
        need, = space.needs(app, missing, store, None, _config(place, storage_watermark=watermark))
        assert need.enough == (100 * (used + need.needed) <= watermark * (used + available))


def test_too_little_room_is_refused_with_the_figures_and_what_pruning_would_free(disk, tmp_path, registry, factory_name,
                                                                               capsys, monkeypatch):
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    images = _images(a=6 * MB)
    pinned = {name: push_image(registry, f"{registry.host}/{factory_name}/{name}:1", image)
              for name, image in images.items()}
    uri = apps.push_app(registry, f"{registry.host}/{factory_name}/shop:1",
                        apps.make_app(apps.compose_text(pinned), {}, images.values()))
    place = disk(16, tmp_path / "disk")
    old = _write(place / "store", "old", _images(a=6 * MB))
    options = ["--store", str(place / "store"), "--state-dir", str(tmp_path / "state")]
    before = stores.files(place)
    assert main([*options, "pull", uri]) == 12
    error = capsys.readouterr().err
    assert re.search(rf"{place} needs (6\.\d MB) \(store \1\) and may take \d\.\d MB: .* the watermark is 80 %", error)
    assert f"'composeapps prune' would free 6.3 MB on {place}" in error and "not enough" not in error
    assert stores.files(place) == before
    assert main([*options, "--docker-host", f"unix://{tmp_path}/none", "prune"]) == 6
    assert main([*options, "pull", uri]) == 0
    assert [str(ref) for ref in Store(place / "store").list_apps()] == [uri] != [str(old.ref)]
    # Now nothing can be freed, and it says so.
    StateDirectory(tmp_path / "state").put("shop", AppState(uri))
    more = _write(tmp_path / "more", "more", _images(a=6 * MB))
    needs = space.needs(more, tuple(more.blobs()), Store(place / "store"), None,
                        Config(store=place / "store", state_dir=tmp_path / "state", factory_file=tmp_path / "none"))
    with pytest.raises(SpaceError, match="'composeapps prune' would free nothing there"):
        space.check(needs)


def test_each_file_system_is_counted_by_itself(dockerd, small_disk, tmp_path):
    app = _write(small_disk / "store", "shop", _images(a=300_000, b=200_000))
    engine = Engine(dockerd.host)
    config = Config(store=small_disk / "store", state_dir=tmp_path / "state", compose_root=tmp_path / "compose",
                    factory_file=tmp_path / "none")
    volumes = space.needs(app, (), Store(config.store), engine, config)
    theirs, = [volume for volume in volumes if volume.parts[space.DOCKER]]
    # The layer that both images have is unpacked once; each as large as it was measured.
    layers = {layer.digest: layer for image in app.images.values() for layer in image.variants[0].document.layers}
    assert len(layers) == 3
    measured = json.loads(Store(config.store).read(app.layers_meta.digest))["amd64"]["layers"]
    assert theirs.parts[space.DOCKER] == sum(measured[d]["usage"] + space.LAYER_FILES for d in layers)
    assert not theirs.estimated and theirs.parts[space.BUNDLE] > 5000
    # From a file system of its own what dockerd lacks of an image comes as a copy, one image at a time.
    base, *data = sorted(layer.size for layer in layers.values())
    assert max(data) <= theirs.parts[space.TEMPORARY] <= base + max(data) + 2 * 4096
    # Where all of it is on one, they are linked.
    near = dockerd.directory / f"near{tmp_path.name}"
    app = _write(near / "store", "shop", _images(a=300_000))
    volume, = space.needs(app, (), Store(near / "store"), engine, _config(near))
    assert volume.parts[space.TEMPORARY] == 0


def test_layers_that_dockerd_has_need_nothing_and_unmeasured_ones_are_called_estimates(dockerd):
    root = dockerd.directory / "space-known"
    engine, config, store = Engine(dockerd.host), _config(root), Store(root / "store")
    first = _write(store.root, "first", _images(a=300_000))
    image = next(iter(first.images.values()))
    loading.load(engine, store, image, "space/known:1")
    assert space.needs(first, (), store, engine, config)[0].parts[space.DOCKER] == 0
    # The base is there, in this store's or in an image that no store knows.
    other = Store(root / "other")
    second = _write(other.root, "second", _images(a=400_000), measured=False)
    need, = space.needs(second, (), other, engine, config)
    same = _write(store.root, "second", _images(a=400_000), measured=False)
    assert space.needs(same, (), store, engine, config)[0].parts == need.parts
    size = next(iter(second.images.values())).variants[0].document.layers[1].size
    assert need.estimated and size * 3 <= need.parts[space.DOCKER] <= size * 3 + 4096 + space.LAYER_FILES
    with pytest.raises(SpaceError, match="needs about "):
        space.check([SimpleNamespace(**{**need._asdict(), "needed": need.needed, "full": need.full, "enough": False})])


@pytest.fixture
def small_device(disk, device_root, tmp_path_factory):
    """A device with everything on one small ext4, and this layer's dockerd."""
    directory = tmp_path_factory.mktemp("small")
    place = disk(128, directory / "disk")
    daemon = DockerDaemon(device_root, directory, dockerd=moby.build.patched() / "dockerd",
                          env={"DOCKER_LOAD_ROOTS": str(place)})
    daemon.data_root = place / "docker"
    (place / "config.toml").write_text(
        f'[pacman]\nreset_apps_root = "{place}/store"\ncompose_apps_root = "{place}/compose"\n'
        f'[composeapps]\nstate_dir = "{place}/state"\ndocker_host = "{daemon.host}"\nfactory_file = "{place}/none"\n')
    with daemon:
        yield SimpleNamespace(place=place, engine=Engine(daemon.host), store=Store(place / "store"),
                              run=lambda *argv: main(["--config", str(place / "config.toml"), *argv]))


def test_a_disk_that_fills_up_all_the_same_is_got_over_without_a_hand(small_device, registry, factory_name, capsys,
                                                                     monkeypatch):
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    device, place = small_device, small_device.place
    images = _images(a=12 * MB, b=12 * MB)
    pinned = {name: push_image(registry, f"{registry.host}/{factory_name}/{name}:1", image)
              for name, image in images.items()}
    compose = apps.compose_text(pinned)
    uri = apps.push_app(registry, f"{registry.host}/{factory_name}/shop:1",
                        apps.make_app(compose, {"f": "x"}, images.values()))
    old = _write(place / "store", "old", _images(a=6 * MB))
    assert device.run("install", "old") == 0
    assert device.engine.ruled_out == set() and loading.foresee(device.engine, device.store) == loading.DIRECT
    assert os.listdir(place / "docker" / "tmp") == []
    kept = {path: content for path, (_i, _t, content) in stores.files(place / "store").items()}

    # While it is fetched.
    filler = _fill(place, 8 * MB)
    assert device.run("pull", "--no-space-check", uri) == 7
    assert "the file system is full" in capsys.readouterr().err
    assert [str(ref) for ref in device.store.list_apps()] == [str(old.ref)]
    assert device.run("check") == 0
    filler.unlink()
    assert device.run("pull", uri) == 0

    # While dockerd unpacks it.
    filler = _fill(place, 8 * MB)
    capsys.readouterr()
    assert device.run("install", "shop") in (6, 7)
    assert "no space left on device" in capsys.readouterr().err
    assert StateDirectory(place / "state").get("shop") is None
    assert device.run("check", "--store-only", "shop") == device.run("check", "old") == 0
    filler.unlink()
    assert device.run("install", "shop") == 0
    assert device.run("check") == 0

    # Full to the last byte, pruning still makes room.
    assert all(stores.files(place / "store")[path][2] == content for path, content in kept.items())
    state = StateDirectory(place / "state")
    state.remove("old")
    shutil.rmtree(place / "compose" / "old")
    _fill(place, 0)
    before = _free(place)
    with pytest.raises(OSError, match="No space left"):
        (place / "more").write_bytes(b"m" * 4096)
    assert device.run("prune") == 0
    assert _free(place) - before > 11 * MB
    assert [str(ref) for ref in device.store.list_apps()] == [uri] and device.run("check") == 0
    assert device.engine.image(next(iter(old.images.values())).variants[0].document.config.digest) is None
