# SPDX-License-Identifier: MIT
"""composeapps inspect: what it says of an app in a registry, before and after a pull, and that it keeps nothing."""

import io
import json

import pytest

from composeapps.cli.main import main
from composeapps.oci.documents import EMPTY_JSON, OCI_EMPTY, OCI_MANIFEST, Descriptor, dump_json
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse, parse_pinned
from composeapps.pull.pull import fetch, survey
from composeapps.store.store import Store
from support.apps import publish
from support.images import make_image, multi_platform, push_image
from support.pulls import Notes, client_for


@pytest.fixture
def inspect(tmp_path, registry, capsys):
    """Run composeapps inspect on a device of its own; return (exit status, standard output, standard error)."""
    config = tmp_path / "config.toml"
    config.write_text(f'[composeapps]\nstate_dir = "{tmp_path}/state"\n[pacman]\n'
                      f'reset_apps_root = "{tmp_path}/store"\n')

    def run(*args):
        status = main(["--config", str(config), "inspect", "--endpoint", registry.endpoint, *map(str, args)])
        return (status, *capsys.readouterr())

    run.store = Store(tmp_path / "store")
    return run


@pytest.fixture
def app(registry, factory_name):
    """Publish a version of an app; return its pinned reference."""
    def make(tag, texts, files=None):
        images = {name: multi_platform(text) for name, text in texts.items()}
        return publish(registry, f"{registry.host}/{factory_name}/shop:{tag}", images, files)

    return make


def test_what_is_in_the_registry(inspect, app, registry, factory_name, tmp_path):
    uri = app("1", {"front": "one", "back": "two"})
    status, out, _ = inspect("--json", "--platform", "linux/arm64", f"{registry.host}/{factory_name}/shop:1")
    value = json.loads(out)
    assert status == 0 and value["uri"] == uri and set(value["platforms"]) == {"linux/amd64", "linux/arm64"}
    assert value["platform"] == "linux/arm64" and value["download"]["bytes"] == value["platforms"]["linux/arm64"]
    assert [s["name"] for s in value["services"]] == ["front", "back"] and not value["in_store"]
    assert all(s["download"] == s["size"] > 0 for s in value["services"])
    assert not (tmp_path / "store").exists() and not (tmp_path / "state").exists(), "nothing is kept"
    status, out, _ = inspect("--platform", "linux/amd64", uri)
    assert status == 0 and "blobs to fetch" in out and "LAYER TO FETCH" in out and "linux/arm64 (" in out


def test_what_the_store_has_is_told(inspect, app, registry):
    old = app("1", {"front": "one", "back": "two"}, {"site.conf": "a"})
    amd64, client = Platform("linux", "amd64"), client_for(registry)
    fetch(survey(parse_pinned(old), inspect.store, client, amd64), inspect.store, client, Notes())
    status, out, _ = inspect("--platform", "linux/amd64", old)
    assert status == 0 and "all of it is in the store" in out and "compared" not in out
    new = app("2", {"front": "one", "back": "three", "side": "four"}, {"site.conf": "a"})
    value = json.loads(inspect("--json", "--platform", "linux/amd64", new)[1])
    download = {s["name"]: s["download"] for s in value["services"]}
    assert download["front"] == 0 and download["back"] > 0 and value["compared_with"] == old
    assert {(c["what"], c["service"]) for c in value["changes"]} == {("added", "side"), ("changed", "back")}
    found = survey(parse_pinned(new), inspect.store, client, amd64)
    assert value["download"] == {"blobs": len(found.missing), "bytes": found.size}, "as a pull would"
    same = app("3", {"front": "one", "back": "two"}, {"site.conf": "b"})
    out = inspect("--platform", "linux/amd64", same)[1]
    assert f"compared with {old} in the store:\n  changed: files of the bundle\n" in out


def test_platforms_that_the_app_lacks(inspect, app):
    uri = app("1", {"front": "one"})
    status, out, err = inspect("--platform", "linux/s390x", uri)
    assert status == 3 and out == "" and "has no image for linux/s390x; it has: linux/amd64, linux/arm64" in err


def test_an_app_for_another_machine_is_shown_without_what_this_one_would_fetch(inspect, registry, factory_name):
    uri = publish(registry, f"{registry.host}/{factory_name}/shop:1", {"web": make_image(platform="linux/s390x")})
    status, out, _ = inspect(uri)
    assert status == 0 and "linux/s390x (" in out and "to fetch" not in out and "FETCH" not in out


@pytest.mark.parametrize(("name", "status", "says"), [
    ("absent:1", 3, "is not in the registry"), ("image:1", 4, "is no compose app"), ("Bad", 2, "in lower case"),
])
def test_what_is_no_app(inspect, registry, factory_name, name, status, says):
    push_image(registry, f"{registry.host}/{factory_name}/image:1", multi_platform())
    code, out, err = inspect(f"{registry.host}/{factory_name}/{name}")
    assert (code, out) == (status, "") and says in err and err.count("\n") == 1


def test_a_bundle_out_of_bounds_is_not_read(inspect, client, registry, factory_name):
    ref, empty = parse(f"{registry.host}/{factory_name}/big:1"), Descriptor.of(EMPTY_JSON, OCI_EMPTY)
    client.push_blob(ref, empty.digest, empty.size, lambda: io.BytesIO(EMPTY_JSON))
    client.push_manifest(ref, dump_json({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty.dump(),
        "layers": [{**empty.dump(), "mediaType": "application/octet-stream", "size": 2**40}]}), OCI_MANIFEST)
    status, _, err = inspect(str(ref))
    assert status == 4 and "its bundle has 1099511627776 bytes, more than" in err
