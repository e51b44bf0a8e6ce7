# SPDX-License-Identifier: MIT
"""The demo apps on their way into a real registry, and from there into recipes."""

import json
from pathlib import Path

import pytest

from composeapps.app.tree import RegistrySource, load_app
from composeapps.errors import CorruptError
from composeapps.oci.reference import parse
from composeapps.registry.client import RegistryClient, parse_endpoints
from factory.demo import publish_demo
from factory.localregistry import LocalRegistry
from factory.push import push_layout
from recipes.command import main
from support import images

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def published(demo_build):
    """The demo's registry while it runs, and {app: pinned reference}."""
    with LocalRegistry(demo_build / "registry" / "data") as registry:
        registry.authorization = lambda repo, *actions: None
        told = []
        apps = publish_demo(registry.endpoint, TOP, demo_build, progress=told.append)
        assert told
        yield registry, {app.name: app.uri for app in apps}


def client_of(registry):
    return RegistryClient(endpoints=parse_endpoints(registry.endpoint))


def test_both_demo_apps_are_published_with_their_files(published):
    registry, uris = published
    assert set(uris) == {"shellhttpd", "web"}
    source = RegistrySource(client_of(registry))
    web = load_app(source, parse(uris["web"]))
    assert {image.ref.repository for image in web.images.values()} == {
        "hub.demo.test/demo/busybox", "hub.demo.test/demo/nginx", "hub.demo.test/demo/redis",
    }
    index = source.blob(web.ref, web.bundle_index.digest, web.bundle_index.size)
    assert set(json.loads(index)) == {"docker-compose.yml", "nginx.conf", "www/cgi-bin/visit"}


def test_publishing_again_changes_nothing_and_downloads_nothing(published, demo_build, monkeypatch):
    registry, uris = published
    monkeypatch.setenv("COMPOSEAPPS_MIRROR", "http://127.0.0.1:1/debian")
    again = publish_demo(registry.endpoint, TOP, demo_build)
    assert {app.name: app.uri for app in again} == uris


def test_recipes_of_conf_apps_can_be_generated(published, tmp_path):
    registry, uris = published
    assert main(["--quiet", "--output", str(tmp_path), "--endpoint", registry.endpoint], TOP) == 0
    for name, platforms in (("shellhttpd", "linux/amd64 linux/arm64"), ("web", "linux/amd64")):
        recipe = (tmp_path / f"composeapp-{name}" / f"composeapp-{name}_1.0.bb").read_text()
        assert f'COMPOSEAPP_URI = "{uris[name]}"' in recipe
        assert f'COMPOSEAPP_PLATFORMS = "{platforms}"' in recipe
        assert "CLOSED" not in recipe


def test_pushing_again_sends_no_layer(published, layouts):
    registry, _ = published
    ref = parse("hub.demo.test/demo/nginx:latest")
    digest, sent = push_layout(client_of(registry), ref, layouts["nginx"])
    _, _, body = images.send(registry, "GET", "/v2/demo/nginx/manifests/latest", "demo/nginx",
                             headers={"Accept": images.INDEX})
    assert images.sha256(body) == digest
    assert sent < 1000


def test_damaged_layout_is_not_tagged(published, layouts, tmp_path):
    registry, _ = published
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "index.json").write_bytes((layouts["redis"] / "index.json").read_bytes())
    for path in (layouts["redis"] / "blobs" / "sha256").iterdir():
        (tmp_path / "blobs" / "sha256" / path.name).write_bytes(path.read_bytes())
    root = json.loads((tmp_path / "index.json").read_text())["manifests"][0]["digest"]
    damaged = tmp_path / "blobs" / "sha256" / root.removeprefix("sha256:")
    damaged.write_bytes(damaged.read_bytes().replace(b"amd64", b"arm64"))
    with pytest.raises(CorruptError, match=root):
        push_layout(client_of(registry), parse("hub.demo.test/demo/damaged:1"), tmp_path)
    status, _, _ = images.send(registry, "GET", "/v2/demo/damaged/manifests/1", "demo/damaged")
    assert status == 404
