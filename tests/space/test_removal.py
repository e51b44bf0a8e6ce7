# SPDX-License-Identifier: MIT
"""Pruning and removal against a real dockerd: containers, networks, volumes and images."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from composeapps.cli.main import main
from composeapps.engine.client import Engine
from composeapps.oci.reference import parse_pinned
from composeapps.records import history
from composeapps.records.state import StateDirectory
from composeapps.store.store import Store
from support import apps, stores
from support.engine import busybox_image
from support.images import make_image, tar

pytestmark = pytest.mark.root


@pytest.fixture
def device(dockerd, factory_name):
    """A device; ``add`` writes a version of an app into its store, of images with the given contents."""
    root = dockerd.directory / factory_name
    root.mkdir()
    config = root / "config.toml"
    config.write_text(
        f'[pacman]\nreset_apps_root = "{root}/store"\ncompose_apps_root = "{root}/compose"\n'
        f'[composeapps]\nstate_dir = "{root}/state"\ndocker_host = "{dockerd.host}"\nfactory_file = "{root}/factory"\n'
        f"compose_command = {json.dumps(list(dockerd.compose_command))}\n")
    engine = Engine(dockerd.host)

    def add(name, contents, extra="", top=""):
        images = {f"s{n}": busybox_image(make_image, tar, {"content": f"{factory_name} {content}"})
                  for n, content in enumerate(contents)}
        pinned = {s: f"hub.demo.test/{factory_name}/{image.digest[7:19]}@{image.digest}" for s, image in images.items()}
        compose = "services:\n" + "".join(
            f'  {s}:\n    image: {uri}\n    command: ["/bin/busybox", "sleep", "600"]\n    stop_signal: SIGKILL\n'
            f"    network_mode: none\n{extra}" for s, uri in pinned.items()) + top
        app = apps.make_app(compose, {}, images.values())
        uri = stores.write(root / "store", f"hub.demo.test/{factory_name}/{name}", app,
                           {pinned[s]: image for s, image in images.items()}, compose=compose)
        return SimpleNamespace(uri=uri, images=list(pinned.values()), name=name)

    def run(*argv):
        return main(["--config", str(config), *argv])

    def docker(*argv):
        done = subprocess.run([dockerd.base / "usr/bin/docker", "--host", dockerd.host, *argv], capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def has(uri):
        ref = parse_pinned(uri)
        return engine.image(f"{ref.repository}:{ref.hex[:7]}") is not None

    yield SimpleNamespace(root=root, add=add, run=run, engine=engine, docker=docker, has=has,
                          store=Store(root / "store"), states=StateDirectory(root / "state"))
    # Other tests have apps of the same names, and these want their projects' names.
    for container in engine.containers("com.docker.compose.project.working_dir"):
        if container["Labels"]["com.docker.compose.project.working_dir"].startswith(f"{root}/"):
            docker("rm", "--force", container["Id"])


def _json(capsys):
    return json.loads(capsys.readouterr().out)


def _containers(device, name):
    return device.engine.containers(f"com.docker.compose.project.working_dir={device.root}/compose/{name}")


def test_pruning_takes_away_the_images_of_apps_that_went_and_no_others(device, capsys):
    old = device.add("shop", ["old", "shared", "used", "named"])
    new = device.add("shop", ["new", "shared"])
    assert device.run("install", old.uri) == 0
    assert device.run("install", new.uri) == 0
    gone, shared, used, named = old.images
    assert all(map(device.has, [*old.images, *new.images]))
    # Somebody's container, not running; somebody's name for an image; somebody's image with a tag like ours.
    tag = f"{used.partition('@')[0]}:{used.partition('sha256:')[2][:7]}"
    container = device.docker("create", "--network", "none", tag, "/bin/busybox")
    device.docker("tag", f"{named.partition('@')[0]}:{named.partition('sha256:')[2][:7]}", "somebody/image:1")
    repository, _, digest = gone.partition("@")
    other = device.add("blog", ["other"])
    assert device.run("install", other.uri) == 0
    device.states.remove("blog")
    shutil.rmtree(device.root / "compose" / "blog")
    device.docker("tag", f"{other.images[0].partition('@')[0]}:{other.images[0].partition('sha256:')[2][:7]}",
                  f"hub.demo.test/somebody/else:{digest[7:14]}")
    # The version before the installed one is kept: have it forgotten, as it is when an update came between.
    state = device.states.get("shop")
    device.states.put("shop", type(state)(new.uri, state.images))
    capsys.readouterr()
    assert device.run("prune", "--dry-run", "--json") == 0
    planned = _json(capsys)
    assert set(planned["apps"]) == {old.uri, other.uri}
    assert device.has(gone)
    assert device.run("prune", "--json") == 0
    done = _json(capsys)
    assert {name.rpartition(":")[0] for name in done["images"]} == {
        uri.partition("@")[0] for uri in (gone, named, *other.images)}
    assert done["docker_bytes"] == planned["docker_bytes"] > 0
    assert [device.has(uri) for uri in (gone, shared, used, named, new.images[0])] == [False, True, True, False, True]
    assert device.engine.image("somebody/image:1")
    assert device.engine.image(f"hub.demo.test/somebody/else:{digest[7:14]}")
    # The container's image goes when the container is gone, although the store has forgotten the app.
    device.docker("rm", container)
    assert device.run("prune", "--json") == 0
    assert not device.has(used)
    assert repository not in json.dumps([image.get("RepoDigests") for image in device.engine.images()])


def test_a_running_container_keeps_the_version_that_it_was_made_from(device, capsys):
    first, second = device.add("shop", ["one"]), device.add("shop", ["two"])
    assert device.run("run", first.uri) == 0
    # The state of an update that was made by other means: the new version is recorded, the old one runs.
    state = device.states.get("shop")
    device.states.put("shop", type(state)(second.uri, {}))
    capsys.readouterr()
    assert device.run("prune", "--json") == 0
    assert _json(capsys)["kept"] == {second.uri: "installed", first.uri: "a container runs it"}
    device.docker("rm", "--force", _containers(device, "shop")[0]["Id"])
    assert device.run("prune", "--json") == 0
    assert _json(capsys)["kept"] == {second.uri: "installed", first.uri: "its bundle is unpacked"}
    assert device.run("install", second.uri) == 0
    state = device.states.get("shop")
    device.states.put("shop", type(state)(second.uri, {}))
    capsys.readouterr()
    assert device.run("prune", "--json") == 0
    assert _json(capsys)["apps"] == [first.uri] and not device.has(first.images[0])


def test_removing_an_app_leaves_its_volumes_and_what_others_share(device, capsys):
    volumes = "    volumes: [data:/data]\n"
    shop = device.add("shop", ["one", "shared"], volumes, "volumes: {data: {}}\n")
    blog = device.add("blog", ["shared"])
    assert device.run("run", "shop", "blog") == 0
    container = _containers(device, "shop")[0]["Id"]
    device.docker("exec", container, "/bin/busybox", "sh", "-c", "echo kept > /data/file")
    volume = device.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=shop")
    assert volume
    capsys.readouterr()
    assert device.run("rm", "--json", "shop") == 0
    result, = _json(capsys)
    assert (result["ok"], len(result["containers"]), result["volumes"]) == (True, 2, [])
    assert _containers(device, "shop") == [] and len(_containers(device, "blog")) == 1
    assert not (device.root / "compose" / "shop").exists() and device.states.names() == ["blog"]
    assert [device.has(uri) for uri in shop.images] == [False, True]
    assert [str(ref) for ref in device.store.list_apps()] == [blog.uri]
    assert device.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=shop") == volume
    assert device.run("check") == 0
    # It comes back, with its data; then all of it goes.
    again = device.add("shop", ["one", "shared"], volumes, "volumes: {data: {}}\n")
    assert again.uri == shop.uri and device.run("run", "shop") == 0
    container = _containers(device, "shop")[0]["Id"]
    assert device.docker("exec", container, "/bin/busybox", "cat", "/data/file") == "kept"
    capsys.readouterr()
    assert device.run("rm", "--volumes", "--json", "shop") == 0
    assert _json(capsys)[0]["volumes"] == [volume]
    assert device.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=shop") == ""


def test_an_app_is_uninstalled_and_comes_back_from_the_store(device, capsys):
    volumes = "    volumes: [data:/data]\n"
    shop = device.add("shop", ["un1", "both"], volumes, "volumes: {data: {}}\n")
    other = device.add("blog", ["both"])
    assert device.run("run", "shop", "blog") == 0
    volume = device.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=shop")
    before = stores.files(device.root / "store")
    capsys.readouterr()
    assert device.run("uninstall", "--json", shop.uri) == 0
    result, = _json(capsys)
    assert (result["ok"], len(result["containers"]), result["volumes"]) == (True, 2, [])
    assert _containers(device, "shop") == [] and len(_containers(device, "blog")) == 1
    assert not (device.root / "compose" / "shop" / "docker-compose.yml").exists()
    assert device.states.names() == ["blog"] and not device.states.removals()
    assert stores.files(device.root / "store") == before
    assert [device.has(uri) for uri in shop.images] == [False, True]
    assert device.run("uninstall", "shop") == device.run("uninstall", other.uri.replace("blog", "shop")) == 3
    assert device.run("run", "shop") == 0 and len(_containers(device, "shop")) == 2
    assert device.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=shop") == volume
    assert device.run("uninstall", "--volumes", "shop") == 0
    assert device.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=shop") == ""
    assert device.run("prune") == 0
    assert [str(ref) for ref in device.store.list_apps()] == [other.uri]


def test_networks_of_the_app_go_and_those_of_a_namesake_stay(device):
    name = f"shop{device.root.name}"
    app = device.add(name, ["one"])
    assert device.run("install", name) == 0
    label = f"com.docker.compose.project={name}"
    device.docker("network", "create", "--internal", "--label", label, name)
    namesake = device.docker("create", "--network", "none", "--label", label, "--label",
                             f"com.docker.compose.project.working_dir=/elsewhere/{name}",
                             next(iter(device.states.get(name).images.values())), "/bin/busybox")
    assert device.run("rm", name) == 0
    assert [network["Name"] for network in device.engine.networks(label)] == [name]
    device.docker("rm", namesake)
    device.add(name, ["one"])
    assert device.run("install", app.uri) == 0
    assert device.run("rm", name) == 0
    assert device.engine.networks(label) == []


def test_what_an_app_of_the_same_last_name_left_stays(device):
    last = f"shop{device.root.name}"
    device.add(f"team/{last}", ["one"])
    assert device.run("install", f"team/{last}") == 0
    own, other = f"com.docker.compose.project=team___{last}", f"com.docker.compose.project={last}"
    for label in (own, other):
        # Their containers are gone: nothing else tells whose these are.
        device.docker("volume", "create", "--label", label)
    assert device.run("rm", "--volumes", f"team/{last}") == 0
    try:
        assert [len(device.engine.volumes(label)) for label in (own, other)] == [0, 1]
    finally:
        for volume in device.engine.volumes(other):
            device.docker("volume", "rm", volume["Name"])


def test_nothing_of_an_app_is_begun_to_be_removed_while_dockerd_is_away(device, capsys):
    device.add("shop", ["one"])
    assert device.run("install", "shop") == 0
    before = stores.files(device.root / "store")
    assert device.run("--docker-host", f"unix://{device.root}/none.sock", "rm", "shop") == 6
    assert "cannot be reached" in capsys.readouterr().err
    assert stores.files(device.root / "store") == before and not device.states.removals()


def test_the_failed_update_of_an_app_that_was_removed_is_history(device):
    app = device.add("shop", ["one"])
    assert device.run("install", app.uri) == 0
    history.append(StateDirectory(device.root / "state"),
                   {"app": "shop", "target": app.uri, "result": "rolled-back", "reason": "it is ill", "code": 14})
    assert device.run("status") == 8
    assert device.run("uninstall", "shop") == 0 and device.run("status") == 8
    assert device.run("rm", "shop") == 0 and device.run("status") == 0
