# SPDX-License-Identifier: MIT
"""Stores go to and from the field's own programs: what they wrote is used here, and what is written here they read."""

import json
import os
from types import SimpleNamespace

import pytest

from composeapps.app.tree import StoreSource, load_app
from composeapps.cli.config import Config
from composeapps.cli.main import main
from composeapps.engine.client import Engine
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse_pinned
from composeapps.records.state import AppState, StateDirectory
from composeapps.space.prune import prune
from composeapps.status import report as status
from composeapps.store.store import Store
from support import apps, stores
from support.engine import busybox_image
from support.images import make_image, make_index, multi_platform, sha256, tar

AMD64 = [Platform("linux", "amd64")]
KINDS = ("composectl", "update", "single-update", "skopeo", "no-bundle-index", "no-layers-meta", "manifests-list",
         "single-platform")


def _made(kind, name="shop", text="one", images=None):
    """Return the parts of an app: (reference, App, {pinned: Image}, compose text, writer)."""
    made = images or {service: multi_platform(f"{service} {text}") for service in ("front", "back")}
    if kind in ("single-platform", "single-update") and images is None:
        made = {service: make_image({"text": f"{service} {text}"}) for service in ("front", "back")}
    pinned = {service: f"hub.demo.test/factory/img/{service}@{image.digest}" for service, image in made.items()}
    compose = apps.compose_text(pinned)
    app = apps.make_app(compose, {"conf/site.conf": f"# {text}\n", "empty": ""}, made.values())
    if kind == "manifests-list":
        app = stores.with_manifests(app, made.values())
    app = stores.without(app, kind in ("no-bundle-index", "skopeo"), kind == "no-layers-meta")
    writer = {"skopeo": stores.SKOPEO, "update": stores.UPDATE,
              "single-update": stores.UPDATE}.get(kind, stores.COMPOSECTL)
    images = {pinned[service]: image for service, image in made.items()}
    return f"hub.demo.test/factory/{name}", app, images, compose, writer


@pytest.fixture
def device(tmp_path):
    """A device's directories, and its configuration as a file and as options."""
    config = Config(store=tmp_path / "store", compose_root=tmp_path / "compose", state_dir=tmp_path / "state",
                    factory_file=tmp_path / "none.json", factory_store=tmp_path / "none")
    options = ["--store", str(config.store), "--compose-root", str(config.compose_root), "--state-dir",
               str(config.state_dir), "--docker-host", f"unix://{tmp_path}/no.sock"]
    return SimpleNamespace(config=config, store=Store(config.store), states=StateDirectory(config.state_dir),
                           options=options)


def _write(device, kind, **more):
    reference, app, images, compose, writer = _made(kind, **more)
    return stores.write(device.config.store, reference, app, images, writer, compose=compose)


def _run(device, capsys, *argv):
    capsys.readouterr()
    status = main([*device.options, *argv])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", KINDS)
def test_their_store_is_listed_shown_and_found_whole(device, capsys, kind):
    uri = _write(device, kind)
    before = stores.files(device.config.store)
    assert _run(device, capsys, "ls", "--json") == (0, [{"name": "shop", "uri": uri, "installed": False}])
    status, shown = _run(device, capsys, "show", "shop", "--json")
    assert status == 0 and [service["platform"] for service in shown["services"]] == ["linux/amd64"] * 2
    status, checked = _run(device, capsys, "check", "--json")
    assert (status, checked[0]["problems"], len(checked)) == (0, [], 1)
    assert stores.files(device.config.store) == before


@pytest.mark.parametrize("kind", KINDS)
def test_their_app_is_shown_by_its_services(device, kind):
    ref = parse_pinned(_write(device, kind))
    device.states.put("shop", AppState(str(ref)))
    app, = status.collect(device.config)["apps"]
    assert [service["name"] for service in app["services"]] == ["front", "back"]
    assert not any("services" in problem["text"] for problem in app["problems"])


@pytest.mark.parametrize("kind", KINDS)
def test_their_store_is_extended_without_touching_what_is_theirs(device, capsys, kind):
    _write(device, kind)
    before = stores.files(device.config.store)
    # Another version of the app; the image of one service is the same.
    reference, app, images, _compose, _writer = _made("composectl", text="two")
    for data in (app.manifest, app.bundle, app.bundle_index, app.layers_meta):
        device.store.add_blob(sha256(data), [data])
    for image in images.values():
        for data in (image.content, *(content for _type, content in image.manifests.values()), *image.blobs.values()):
            device.store.add_blob(sha256(data), [data])
    ref = parse_pinned(f"{reference}@{app.digest}")
    device.store.add_app(load_app(StoreSource(device.store), ref, AMD64))
    after = stores.files(device.config.store)
    assert {path: after.get(path) for path in before} == before
    status, checked = _run(device, capsys, "check", "--json")
    assert (status, len(checked)) == (0, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_adding_their_app_once_more_leaves_what_is_right_as_it_is(device, kind):
    ref = parse_pinned(_write(device, kind))
    before = stores.files(device.config.store)
    device.store.add_app(load_app(StoreSource(device.store), ref, AMD64))
    after = stores.files(device.config.store)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("kind", KINDS)
def test_their_store_is_pruned_of_what_nobody_needs(device, capsys, kind):
    old, new = _write(device, kind), _write(device, kind, text="two")
    device.states.put("shop", AppState(new))
    kept = {path for path in stores.files(device.config.store) if parse_pinned(new).hex in path}
    report = prune(device.store, device.states, device.config, None)
    assert (report.apps, report.problems) == ([old], [])
    assert kept <= set(stores.files(device.config.store))
    assert not device.store.app_dir(parse_pinned(old)).exists()
    status, checked = _run(device, capsys, "check", "--store-only", "--json")
    assert (status, [result["uri"] for result in checked]) == (0, [new])
    alone = Store(device.config.store.with_name("alone"))
    reference, app, images, compose, writer = _made(kind, text="two")
    stores.write(alone.root, reference, app, images, writer, compose=compose)
    assert set(stores.files(device.config.store)) == set(stores.files(alone.root))


def test_each_platform_of_their_store_is_read_and_kept(device):
    reference, app, images, compose, writer = _made("composectl")
    uri = stores.write(device.config.store, reference, app, images, writer, ("linux/amd64", "linux/arm64"), compose)
    device.states.put("shop", AppState(uri))
    before = stores.files(device.config.store)
    for text in ("linux/arm64", "linux/amd64"):
        found = load_app(StoreSource(device.store), parse_pinned(uri), [Platform.parse(text)])
        assert {str(v.platform) for image in found.images.values() for v in image.variants} == {text}
    assert prune(device.store, device.states, device.config, None).blobs == 0
    assert stores.files(device.config.store) == before


@pytest.mark.root
@pytest.mark.parametrize("kind", ["composectl", "skopeo", "no-bundle-index"])
def test_their_app_is_installed_and_runs(dockerd, capsys, kind):
    root = dockerd.directory / f"interop-{kind}"
    image = busybox_image(make_image, tar, {"name": kind})
    image = make_index(image) if kind != "no-bundle-index" else image
    _, _, images, _, writer = _made(kind, images={"main": image})
    compose = (f"services:\n  main:\n    image: {next(iter(images))}\n"
               '    command: ["/bin/busybox", "sleep", "60"]\n'
               "    network_mode: none\n    stop_signal: SIGKILL\n    volumes: [./conf/site.conf:/site.conf:ro]\n")
    app = apps.make_app(compose, {"conf/site.conf": f"# {kind}\n"}, [image])
    app = stores.without(app, kind == "no-bundle-index")
    uri = stores.write(root / "store", f"hub.demo.test/factory/theirs-{kind}", app, images, writer, compose=compose)
    (root / "config.toml").write_text(
        f'[pacman]\nreset_apps_root = "{root}/store"\ncompose_apps_root = "{root}/compose"\n'
        f'[composeapps]\nstate_dir = "{root}/state"\ndocker_host = "{dockerd.host}"\nfactory_file = "{root}/none"\n'
        f"compose_command = {json.dumps(list(dockerd.compose_command))}\n")
    options = ["--config", str(root / "config.toml")]
    assert main([*options, "run", f"theirs-{kind}"]) == 0
    try:
        capsys.readouterr()
        assert main([*options, "check", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["uri"] == uri
        label = f"com.docker.compose.project.working_dir={root}/compose/theirs-{kind}"
        containers = Engine(dockerd.host).containers(label)
        assert [container["State"] for container in containers] == ["running"]
    finally:
        main([*options, "rm", f"theirs-{kind}"])
    assert [path for path in (root / "store").rglob("*") if path.is_file()] == []


def test_what_is_written_here_is_what_they_read(device):
    reference, app, images, compose, _writer = _made("composectl")
    for data in (app.manifest, app.bundle, app.bundle_index, app.layers_meta):
        device.store.add_blob(sha256(data), [data])
    for image in images.values():
        for data in (image.content, *(content for _type, content in stores.variants(image)), *image.blobs.values()):
            device.store.add_blob(sha256(data), [data])
    ref = parse_pinned(f"{reference}@{app.digest}")
    device.store.add_app(load_app(StoreSource(device.store), ref, AMD64))
    root = device.config.store
    home, blobs = root / "apps" / "shop" / ref.hex, root / "blobs" / "sha256"
    bundle = sha256(app.bundle)[7:]
    # The second is nothing to them.
    expected = {"uri", "uri.sha256", "manifest.json", f"{bundle}.tgz", "docker-compose.yml"}
    for pinned in images:
        repository, _, digest = pinned.partition("@")
        expected |= {f"images/{repository}/{digest[7:]}/index.json", f"images/{repository}/{digest[7:]}/oci-layout"}
    assert {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()} == expected
    assert (home / "uri").read_bytes() == f"{reference}@{app.digest}".encode()
    assert os.path.samefile(home / "manifest.json", blobs / ref.hex)
    assert os.path.samefile(home / f"{bundle}.tgz", blobs / bundle)
    assert (home / "docker-compose.yml").read_text() == compose
    for pinned, image in images.items():
        repository, _, digest = pinned.partition("@")
        place = home / "images" / repository / digest[7:]
        (media_type, content), = stores.variants(image)
        assert json.loads((place / "index.json").read_text()) == {
            "schemaVersion": 2,
            "manifests": [{"mediaType": media_type, "digest": sha256(content), "size": len(content),
                           "platform": {"architecture": "amd64", "os": "linux"}}]}
        assert json.loads((place / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {
        f"apps/shop/{ref.hex}/{name}" for name in expected} == {f"blobs/sha256/{path.name}" for path in blobs.iterdir()}
    for path in blobs.iterdir():
        assert sha256(path.read_bytes()) == f"sha256:{path.name}" and path.stat().st_mode & 0o777 == 0o644
    assert not any((root / "ingest").iterdir())
