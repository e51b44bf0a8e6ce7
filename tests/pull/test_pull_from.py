# SPDX-License-Identifier: MIT
"""Apps come from another store, without a network, and for other platforms than this one."""

import json
import shutil

import pytest

from composeapps.app.tree import StoreSource, load_app
from composeapps.cli.main import main
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse_pinned
from composeapps.store import partial
from composeapps.store.store import Store
from support import apps, stores
from support.images import multi_platform


@pytest.fixture
def place(memory, capsys):
    """Give (a function that runs a command, the other store's root, the device's Store, the app's reference)."""
    image = multi_platform("stick")
    pinned = f"hub.demo.test/f/x@{image.digest}"
    compose = apps.compose_text({"web": pinned})
    app = apps.make_app(compose, {"site.conf": "x"}, [image])
    stick = memory / "stick"
    uri = stores.write(stick, "hub.demo.test/f/shop", app, {pinned: image}, platforms=("linux/amd64", "linux/arm64"),
                       compose=compose)
    options = ["--store", str(memory / "store"), "--state-dir", str(memory / "state"), "--compose-root",
               str(memory / "compose"), "--docker-host", f"unix://{memory}/none.sock"]

    def run(*argv):
        capsys.readouterr()
        return main([*options, *map(str, argv)])

    return run, stick, Store(memory / "store"), uri


@pytest.mark.parametrize("name", ["shop", "uri"])
def test_an_app_is_taken_from_another_store(place, name):
    run, stick, store, uri = place
    before = stores.files(stick)
    assert run("pull", "--from", stick, uri if name == "uri" else name) == 0
    assert run("check") == 0 and [str(ref) for ref in store.list_apps()] == [uri]
    assert list(store.ingest.iterdir()) == [] and stores.files(stick) == before
    shutil.rmtree(stick)
    assert run("pull", uri) == 0


def test_a_directory_of_blobs_will_do(place):
    run, stick, _store, uri = place
    shutil.rmtree(stick / "apps")
    assert run("pull", "--from", stick, uri) == 0 and run("check") == 0


def test_a_pull_that_was_cut_off_goes_on(place):
    run, stick, store, uri = place
    layer = max(stick.glob("blobs/sha256/*"), key=lambda path: path.stat().st_size)
    part = partial.Partial(store, f"sha256:{layer.name}", layer.stat().st_size, "shop")
    part.append(layer.read_bytes()[:20])
    part.sync()
    part.close()
    assert run("pull", "--from", stick, uri) == 0 and run("check") == 0


def test_what_is_damaged_or_missing_there_is_told_and_not_taken(place, capsys):
    run, stick, store, uri = place
    app = load_app(StoreSource(Store(stick)), parse_pinned(uri), [Platform("linux", "amd64")])
    layer = Store(stick).blob_path(next(iter(app.images.values())).variants[0].document.layers[0].digest)
    data = layer.read_bytes()
    for spoiled, status in ((data[:-1], 4), (data[:-1] + bytes([data[-1] ^ 1]), 4), (None, 3)):
        layer.unlink()
        if spoiled is not None:
            layer.write_bytes(spoiled)
        assert run("pull", "--from", stick, "shop") == status
        assert layer.name in capsys.readouterr().err and store.list_apps() == []
    layer.write_bytes(data)
    assert run("pull", "--from", stick, "shop") == 0


def test_what_is_no_store_is_refused(place, tmp_path, capsys):
    run, stick, _store, uri = place
    assert run("pull", "--from", tmp_path, uri) == 2
    assert "is no store" in capsys.readouterr().err
    assert run("pull", "--from", stick, "blog") == 2


def test_other_platforms_come_beside_each_other(place):
    run, stick, store, uri = place
    assert run("pull", "--from", stick, "--platform", "linux/arm64", uri) == 0
    load_app(StoreSource(store), parse_pinned(uri), [Platform("linux", "arm64")])
    (listed,) = (json.loads(path.read_bytes())["manifests"] for path in store.root.glob("apps/**/index.json"))
    assert [item["platform"]["architecture"] for item in listed] == ["arm64"]
    assert run("pull", "--from", stick, "--platform", "linux/amd64", uri) == 0
    (listed,) = (json.loads(path.read_bytes())["manifests"] for path in store.root.glob("apps/**/index.json"))
    assert sorted(item["platform"]["architecture"] for item in listed) == ["amd64", "arm64"]
    assert run("check") == 0
    assert run("pull", "--platform", "linux", uri) == 2
    assert run("pull", "--from", stick, "--platform", "linux/s390x", uri) == 3
