# SPDX-License-Identifier: MIT
"""Beside the real composectl, in many shapes of apps, both ways; skipped where it is not on PATH."""

import copy
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import composeapps
from composeapps.cli.main import main
from composeapps.engine.client import Engine
from support import composectl, shapes, stores
from support.apps import compose_text, make_app, push_app
from support.engine import busybox_image
from support.faults import FaultyProxy
from support.images import make_image, make_index, push_image, tar

pytestmark = pytest.mark.skipif(composectl.PROGRAM is None, reason="composectl is not on PATH")
TOP = Path(composeapps.__file__).parents[1]
_count = itertools.count(1)


@pytest.fixture
def place(memory, registry, monkeypatch, capsys):
    """A device that both programs work on; ``publish(shape)`` gives (pinned reference, Made)."""
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    theirs = composectl.Composectl(memory / "device", registry)
    options = ["--store", str(theirs.store), "--compose-root", str(theirs.projects), "--state-dir",
               str(memory / "state"), "--docker-host", f"unix://{memory}/none.sock"]

    def publish(shape, version="1", factory=None):
        repository = f"{factory or f'peer{next(_count)}'}/shop"
        made = shapes.make(shape, registry.host, repository, version)
        return shapes.push(registry, made, repository, version), made

    def ours(*argv):
        capsys.readouterr()
        status = main([*options, *argv])
        return status, capsys.readouterr().out

    return SimpleNamespace(theirs=theirs, ours=ours, publish=publish, memory=memory)


def _tree(root):
    """Return {path: (mode, content)} of a store; a list of manifests without which of its services an image names."""
    found = {str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes())
             for path in sorted(root.rglob("*")) if path.is_file()}
    for path, (mode, content) in found.items():
        if path.endswith("index.json") and b"service.name" in content:
            value = json.loads(content)
            value["manifests"][0]["annotations"] = sorted(value["manifests"][0]["annotations"])
            found[path] = mode, json.dumps(value).encode()
    return found


@pytest.mark.parametrize("shape", shapes.ALL)
def test_what_they_pull_is_what_the_tests_make_of_it_and_whole_here(place, shape):
    uri, made = place.publish(shape)
    place.theirs.do("pull", uri)
    root = place.memory / "made"
    stores.write(root, uri.partition("@")[0], made.app, made.images, compose=made.compose)
    assert _tree(place.theirs.store) == _tree(root)
    status, text = place.ours("check", "--json")
    assert (status, json.loads(text)[0]["problems"]) == (0, [])
    status, text = place.ours("show", "shop", "--json")
    assert status == 0 and json.loads(text)["uri"] == uri
    before = stores.files(place.theirs.store)
    assert place.ours("pull", uri)[0] == 0
    after = stores.files(place.theirs.store)
    assert {path: after[path] for path in before} == before
    assert uri in place.theirs.do("check", "--local", uri)


@pytest.mark.parametrize("shape", shapes.ALL)
def test_what_is_pulled_here_is_whole_there(place, shape):
    uri, _made = place.publish(shape)
    assert place.ours("pull", uri)[0] == 0
    assert uri in place.theirs.do("ls")
    found = json.loads(place.theirs.do("check", "--local", "--format", "json", uri))
    assert not found["fetch_check"]["missing_blobs"]
    assert place.theirs.do("prune") == ""
    place.theirs.do("pull", uri)
    assert place.ours("check")[0] == 0


@pytest.mark.parametrize("kind", shapes.IMAGES)
def test_what_their_update_fetches_is_whole_here_and_what_the_tests_make_of_it(place, kind):
    uri, made = place.publish(f"{kind}/shared")
    place.theirs.do("update", "init", uri)
    place.theirs.do("update", "fetch")
    (place.theirs.store / "updates.db").unlink()
    root = place.memory / "made"
    stores.write(root, uri.partition("@")[0], made.app, made.images, stores.UPDATE, compose=made.compose)
    assert _tree(place.theirs.store) == _tree(root)
    assert place.ours("check")[0] == 0
    assert place.ours("pull", uri)[0] == 0 and place.ours("check")[0] == 0
    assert uri in place.theirs.do("check", "--local", uri)


@pytest.mark.parametrize("kind", ["index", "manifest"])
def test_each_removes_what_the_other_has_pulled(place, kind):
    factory = f"peer{next(_count)}"
    (old, _), (new, _) = (place.publish(f"{kind}/shared", version, factory) for version in "12")
    place.theirs.do("pull", old)
    place.theirs.do("pull", new)
    # Without dockerd its images are left, and that is told.
    assert place.ours("rm", old)[0] == 6
    assert place.theirs.do("ls").split()[-1] == new
    place.theirs.do("check", "--local", new)
    assert place.ours("pull", old)[0] == 0
    place.theirs.do("rm", "--quiet", new)
    status, text = place.ours("ls", "--json")
    assert [each["uri"] for each in json.loads(text)] == [old] and status == 0
    assert place.ours("check")[0] == 0


@pytest.fixture
def running(dockerd, registry, factory_name, monkeypatch, capsys):
    """A device with dockerd that both programs work on; ``publish(version)`` gives a pinned reference."""
    # A stock dockerd takes no image by its digest but from a registry, and without TLS from this machine alone.
    registry = copy.copy(registry)
    registry.host = registry.url.removeprefix("http://")
    root = dockerd.directory / factory_name
    theirs = composectl.Composectl(root, registry, dockerd.host, dockerd.compose_command)
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", registry.endpoint)
    config = root / "config.toml"
    config.write_text(
        f'[pacman]\nreset_apps_root = "{theirs.store}"\ncompose_apps_root = "{theirs.projects}"\n'
        f'[composeapps]\nstate_dir = "{root}/state"\ndocker_host = "{dockerd.host}"\nfactory_file = "{root}/none"\n'
        f"soak_time = 1\ncompose_command = {json.dumps(list(dockerd.compose_command))}\n")
    name = f"shop-{factory_name}"

    def publish(version, index=True):
        image = busybox_image(make_image, tar, {"version": f"{factory_name} {version}"})
        image = make_index(image) if index else image
        pinned = push_image(registry, f"{registry.host}/{factory_name}/busybox:{version}", image)
        compose = compose_text({"main": pinned}) + (
            '    command: ["/bin/busybox", "sleep", "600"]\n    network_mode: none\n    stop_signal: SIGKILL\n'
            "    volumes: [./conf/site.conf:/site.conf:ro]\n")
        app = make_app(compose, {"conf/site.conf": f"# {version}\n"}, [image])
        return push_app(registry, f"{registry.host}/{factory_name}/{name}:{version}", app)

    def ours(*argv):
        capsys.readouterr()
        status = main(["--config", str(config), *argv])
        return status, capsys.readouterr()

    def containers():
        found = Engine(dockerd.host).containers(f"com.docker.compose.project.working_dir={theirs.projects}/{name}")
        return {each["Id"]: each["State"] for each in found}

    yield SimpleNamespace(name=name, theirs=theirs, ours=ours, publish=publish, containers=containers, root=root)
    ours("rm", name)


def _right(result):
    status, printed = result
    assert status == 0, printed
    return printed.out


@pytest.mark.root
@pytest.mark.parametrize("index", [True, False], ids=["index", "manifest"])
def test_what_they_installed_and_run_goes_on_here(running, index):
    uri = running.publish("1", index)
    running.theirs.do("pull", uri)
    running.theirs.do("run", running.name)
    before = running.containers()
    assert list(before.values()) == ["running"]
    assert json.loads(_right(running.ours("prune", "--json")))["apps"] == []
    _right(running.ours("status"))
    _right(running.ours("check"))
    _right(running.ours("run", running.name))
    assert running.containers() == before
    _right(running.ours("ps"))
    _right(running.ours("status"))
    new = running.publish("2", index)
    _right(running.ours("update", new))
    assert f"{running.name} -> {new}" in running.theirs.do("ls")
    found = json.loads(running.theirs.do("check", "--local", "--install", "--format", "json", new))
    installed = found["install_check"][new]
    assert not installed["missing_images"] and not installed["bundle_errors"]
    running.theirs.do("ps", new)
    running.theirs.do("stop", running.name)
    assert running.containers() == {}
    assert running.ours("ps")[0] == 8
    _right(running.ours("run", running.name))
    _right(running.ours("stop", running.name))
    _right(running.ours("status"))
    running.theirs.do("prune")
    _right(running.ours("run", running.name))


@pytest.mark.root
def test_what_they_stopped_stays_when_we_prune_and_what_we_stopped_when_they_do(running):
    uri = running.publish("1")
    running.theirs.do("pull", uri)
    running.theirs.do("run", running.name)
    running.theirs.do("stop", running.name)
    assert json.loads(_right(running.ours("prune", "--json")))["apps"] == []
    running.theirs.do("run", running.name)
    _right(running.ours("install", running.name))
    _right(running.ours("stop", running.name))
    running.theirs.do("prune")
    _right(running.ours("run", running.name))
    running.theirs.do("stop", running.name)
    running.theirs.do("uninstall", running.name)
    assert _right(running.ours("ls")).count(running.name)
    _right(running.ours("run", running.name))
    assert list(running.containers().values()) == ["running"]


@pytest.mark.root
def test_their_update_from_ours_and_ours_from_theirs(running):
    first, second, third = (running.publish(version) for version in "123")
    _right(running.ours("pull", first))
    _right(running.ours("run", running.name))
    for step in (["init", second], ["fetch"], ["install"], ["start"], ["complete", "--prune"]):
        running.theirs.do("update", *step)
    assert list(running.containers().values()) == ["running"]
    _right(running.ours("check"))
    running.ours("status")
    _right(running.ours("update", third))
    _right(running.ours("status"))
    assert list(running.containers().values()) == ["running"]


def _app_of_layers(registry, factory, size=2_000_000):
    """Publish an app of an image with three layers; return its pinned reference."""
    layers = [tar({"data": random.Random(number).randbytes(size)}) for number in range(3)]
    image = make_index(make_image(layers=layers))
    pinned = push_image(registry, f"{registry.host}/{factory}/web:1", image)
    app = make_app(compose_text({"web": pinned}), {"site.conf": "x"}, [image])
    return push_app(registry, f"{registry.host}/{factory}/shop:1", app)


def _cut_off(registry, size, start):
    """Start a process that fetches from a registry's URL, and kill it when that many bytes came."""
    with FaultyProxy(registry.url, hold_after=size) as proxy:
        process = start(proxy.url)
        assert proxy.held.wait(60)
        process.kill()
        process.wait()


def test_their_pull_goes_on_after_we_have_pruned(place, registry, factory_name):
    uri = _app_of_layers(registry, factory_name)

    def start(url):
        place.theirs.env["COMPOSE_APPS_PROXY"] = f"{url}/"
        return place.theirs.popen("pull", uri)

    _cut_off(registry, 3_000_000, start)
    assert list(place.theirs.store.glob("ingest/*/data"))
    before = stores.files(place.theirs.store)
    # Without dockerd its images are left, and that is told.
    assert place.ours("prune")[0] == 6
    assert stores.files(place.theirs.store) == before
    with FaultyProxy(registry.url) as proxy:
        place.theirs.env["COMPOSE_APPS_PROXY"] = f"{proxy.url}/"
        place.theirs.do("pull", uri)
        # It takes the blob up that was whole, if not the one that was not.
        assert proxy.body_bytes < 4_500_000
    assert place.ours("check")[0] == 0


def test_our_pull_goes_on_after_they_have_pruned(place, registry, factory_name, monkeypatch):
    uri = _app_of_layers(registry, factory_name)
    argv = [sys.executable, "-m", "composeapps", "pull", "--store", place.theirs.store, "--state-dir",
            place.memory / "state", "--parallel", "1", uri]

    def start(url):
        env = {"PYTHONPATH": str(TOP), "COMPOSEAPPS_ENDPOINTS": f"{registry.host}={url}"}
        return subprocess.Popen(argv, env=env)

    _cut_off(registry, 3_000_000, start)
    place.theirs.do("prune")
    with FaultyProxy(registry.url) as proxy:
        monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", f"{registry.host}={proxy.url}")
        assert place.ours("pull", uri)[0] == 0
        assert proxy.body_bytes < 4_000_000
    assert place.ours("check")[0] == 0
    assert list((place.theirs.store / "ingest").iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("index", [True, False], ids=["index", "manifest"])
def test_what_their_update_alone_brought_is_well_here(running, index):
    uri = running.publish("1", index)
    for step in (["init", uri], ["fetch"], ["install"]):
        running.theirs.do("update", *step)
    # It has a uri and nothing else in the store's directory of apps, and its update is not at its end.
    assert json.loads(_right(running.ours("prune", "--json")))["apps"] == []
    for step in (["start"], ["complete"]):
        running.theirs.do("update", *step)
    before = running.containers()
    for words in (["check"], ["status"], ["ls"], ["show", running.name], ["prune"], ["run", running.name], ["ps"],
                  ["status"], ["check"]):
        _right(running.ours(*words))
    assert running.containers() == before and list(before.values()) == ["running"]
    _right(running.ours("stop", running.name))
    running.theirs.do("ps", uri)
    _right(running.ours("rm", running.name))
    assert running.theirs.do("ls") == ""


@pytest.mark.root
def test_a_project_of_theirs_in_another_place_is_not_taken_for_ours(running, tmp_path):
    uri = running.publish("1")
    running.theirs.do("pull", uri)
    running.theirs.do("run", running.name)
    status, printed = running.ours("--compose-root", str(tmp_path / "elsewhere"), "run", running.name)
    assert status == 2 and "belongs to containers that were started from" in printed.err
    assert "started" not in printed.err.replace("were started", "")
    assert list(running.containers().values()) == ["running"]
