# SPDX-License-Identifier: MIT
"""The device's commands against a real dockerd: from a store to running containers and back."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from composeapps.app.publish import publish
from composeapps.app.tree import RegistrySource, load_app
from composeapps.cli.main import main
from composeapps.engine.client import Engine
from composeapps.oci.documents import dump_json
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse
from composeapps.store.preload import build_store, merge_store
from composeapps.store.store import Store
from support.engine import DockerDaemon, busybox_image
from support.images import make_image, push_image, tar

pytestmark = pytest.mark.root

COMPOSE = """\
services:
  front:
    image: {front}
    command: ["/bin/busybox", "sh", "-c", "cat /site.conf && exec /bin/busybox sleep 3600"]
    network_mode: none
    stop_signal: SIGKILL
    volumes:
      - ./site.conf:/site.conf:ro
    depends_on:
      back:
        condition: service_healthy
  back:
    image: {back}
    command: ["/bin/busybox", "sleep", "3600"]
    network_mode: none
    stop_signal: SIGKILL
    healthcheck:
      test: ["CMD", "/bin/busybox", "true"]
      interval: 1s
"""


@pytest.fixture(scope="module")
def dockerd(device_root, tmp_path_factory):
    """One dockerd for the module."""
    with DockerDaemon(device_root, tmp_path_factory.mktemp("dockerd")) as daemon:
        yield daemon


@pytest.fixture
def device(dockerd, registry, client, factory_name, tmp_path_factory, monkeypatch):
    """A device with the app "shop" in its store, as an image's build leaves it."""
    root = dockerd.directory / factory_name
    app_dir = tmp_path_factory.mktemp("app")
    refs = {}
    for name in ("front", "back"):
        # A layer of its own, which dockerd does not have from another test.
        image = busybox_image(make_image, tar, {"name": f"{factory_name}-{name}"})
        refs[name] = push_image(registry, f"{registry.host}/{factory_name}/{name}:1", image)
    (app_dir / "docker-compose.yml").write_text(COMPOSE.format(**refs))
    (app_dir / "site.conf").write_text("from the bundle\n")
    # A name of its own, so that tests do not see each other's containers.
    name = f"shop{factory_name}"
    ref = publish(app_dir, parse(f"{registry.host}/{factory_name}/{name}:1"), client).ref
    source = RegistrySource(client)
    app = load_app(source, ref, [Platform.parse("linux/amd64")])
    built = Store(root / "built")
    for blob in app.blobs():
        data = (client.manifest(blob.ref, blob.descriptor.digest) if blob.kind == "manifests" else
                b"".join(client.blob(blob.ref, blob.descriptor.digest, blob.descriptor.size)))
        built.add_blob(blob.descriptor.digest, [data])
    build_store(built.root, str(ref), list(app.images), "linux/amd64")
    merge_store([built.root], root / "store", root / "factory.json")
    config = root / "config.toml"
    config.write_text(f"""
[pacman]
reset_apps_root = "{root}/store"
compose_apps_root = "{root}/compose"
[composeapps]
factory_file = "{root}/factory.json"
state_dir = "{root}/state"
docker_host = "{dockerd.host}"
compose_command = {json.dumps(list(dockerd.compose_command))}
""")
    engine = Engine(dockerd.host)

    def containers():
        found = engine.containers(f"com.docker.compose.project.working_dir={root}/compose/{name}")
        inspected = [engine.container(c["Id"]) for c in found]
        return {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in inspected}

    def states():
        return {c["State"]["Status"] for c in containers().values()}

    yield SimpleNamespace(root=root, config=config, store=Store(root / "store"), app=app, name=name, engine=engine,
                          containers=containers, states=states, compose=root / "compose" / name, dockerd=dockerd)
    main(["--config", str(config), "stop", "--all"])


@pytest.fixture
def run(device, capsys):
    """Run a command on the device; return (exit status, standard output, standard error)."""
    def command(*argv):
        capsys.readouterr()
        status = main(["--config", str(device.config), *argv])
        return (status, *capsys.readouterr())

    return command


def test_first_boot_installs_and_starts_what_was_preloaded(device, run):
    status, out, err = run("run", "--factory", "--json")
    assert status == 0, err
    assert json.loads(out) == [{"name": device.name, "uri": str(device.app.ref), "state": "started", "ok": True}]
    assert set(device.containers()) == {"front", "back"} and device.states() == {"running"}
    assert (device.compose / "site.conf").read_text() == "from the bundle\n"


def test_every_later_boot_changes_nothing(device, run):
    run("run", "--factory")
    before = {name: c["Id"] for name, c in device.containers().items()}
    status, _, err = run("run", "--factory")
    assert status == 0 and "loading" not in err
    assert {name: c["Id"] for name, c in device.containers().items()} == before


def test_ls_show_version(device, run):
    assert json.loads(run("ls", "--json")[1]) == [
        {"name": device.name, "uri": str(device.app.ref), "installed": False}]
    run("install", device.name)
    status, out, _ = run("ls")
    assert status == 0 and device.name in out and "yes" in out
    shown = json.loads(run("show", device.name, "--json")[1])
    assert {s["name"] for s in shown["services"]} == {"front", "back"} and shown["size"] > 500_000
    assert run("show", device.name, "--compose")[1].encode() == device.app.compose
    assert "composeapps 0." in run("version")[1]


def test_ps_tells_state_and_health(device, run):
    run("run", device.name)
    status, out, _ = run("ps", "--json")
    services = {s["name"]: s for s in json.loads(out)[0]["services"]}
    assert status == 0
    assert services["back"]["health"] == "healthy" and services["front"]["state"] == "running"
    assert all(s["current"] for s in services.values())
    device.engine._json("POST", f"/containers/{services['front']['container']}/kill")
    device.engine._json("POST", f"/containers/{services['front']['container']}/wait")
    status, out, _ = run("ps")
    assert status == 8 and "exited" in out


def test_stop_lasts_over_a_boot_and_run_ends_it(device, run):
    run("run", device.name)
    assert run("stop", device.name)[0] == 0
    assert device.states() == {"exited"}
    status, _, err = run("run", "--factory")
    assert status == 0 and "stays stopped" in err
    assert device.states() == {"exited"}
    assert run("run", device.name)[0] == 0
    assert device.states() == {"running"}


def test_an_installed_app_that_lost_its_containers_comes_back_at_boot(device, run):
    run("run", device.name)
    (device.root / "factory.json").write_bytes(dump_json({"apps": {}}))
    for container in device.containers().values():
        device.engine._json("DELETE", f"/containers/{container['Id']}?force=1")
    assert run("run", "--factory")[0] == 0 and not device.containers()
    assert run("run", "--factory", "--installed")[0] == 0
    assert device.states() == {"running"}
    run("stop", device.name)
    assert run("run", "--factory", "--installed")[0] == 0
    assert device.states() == {"exited"}


def test_check_passes_then_finds_each_damage(device, run):
    run("run", device.name)
    status, out, _ = run("check")
    assert status == 0 and "ok (store, bundle, images" in out
    (device.compose / "site.conf").write_text("edited")
    status, out, _ = run("check", device.name)
    assert status == 4 and "site.conf has other content; 'composeapps install" in out
    assert run("check", "--store-only")[0] == 0
    assert run("install", device.name)[0] == 0
    assert run("check")[0] == 0


def test_check_finds_a_flipped_byte_in_any_blob(device, run):
    blobs = sorted(device.store.blobs.iterdir())
    assert len(blobs) >= 8
    for blob in blobs:
        whole = blob.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 1
        blob.write_bytes(damaged)
        status, out, _ = run("check")
        assert status == 4 and blob.name in out, blob
        blob.write_bytes(whole)
    assert run("check")[0] == 0


def test_check_names_a_missing_blob(device, run):
    layer = next(iter(device.app.images.values())).variants[0].document.layers[0]
    device.store.blob_path(layer.digest).unlink()
    status, out, _ = run("check")
    assert status == 3 and f"blob {layer.digest} is not in the store" in out


def test_a_damaged_layer_never_reaches_dockerd(device, run):
    image = next(iter(device.app.images.values()))
    layer = image.variants[0].document.layers[-1]
    path = device.store.blob_path(layer.digest)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + bytes(20))
    status, _, err = run("run", device.name)
    assert status == 4 and "is damaged" in err
    assert device.engine.image(image.variants[0].document.config.digest) is None
    path.write_bytes(whole)
    assert run("run", device.name)[0] == 0


def test_images_are_tagged_so_that_a_prune_leaves_them(device, run):
    run("install", device.name)
    for image in device.app.images.values():
        found = device.engine.image(image.variants[0].document.config.digest)
        assert found["RepoTags"] == [f"{image.ref.repository}:{image.ref.hex[:7]}"]


def test_without_dockerd_the_error_is_one_sentence(device, run, tmp_path):
    status, _, err = run("--docker-host", f"unix://{tmp_path}/none.sock", "run", device.name)
    assert status == 6 and "cannot be reached" in err and err.count("\n") == 1


def test_a_failing_service_is_reported_with_composes_words(device, run):
    run("install", device.name)
    (device.compose / "site.conf").unlink()
    (device.compose / "site.conf").mkdir()
    # `run` repairs the bundle first, so the damage must be elsewhere: a compose command that fails.
    text = device.config.read_text().splitlines()
    text = [line if not line.startswith("compose_command") else 'compose_command = ["/bin/false"]'
            for line in text]
    device.config.write_text("\n".join(text))
    status, _, err = run("run", device.name)
    assert status == 6 and "docker compose up failed" in err
    assert (device.compose / "site.conf").is_file(), "the bundle was repaired"


def test_unknown_app(run):
    status, _, err = run("run", "bakery")
    assert status == 3 and "app 'bakery' is not in the store" in err
    assert run("stop", "bakery")[0] == 3
    assert run("ps", "bakery")[0] == 3


def test_no_preloaded_apps(device, run):
    (device.root / "factory.json").unlink()
    status, _, err = run("run", "--factory")
    assert status == 3 and "built without preloaded apps" in err


def test_one_broken_app_does_not_keep_the_others_down(device, run):
    factory = json.loads((device.root / "factory.json").read_text())
    factory["apps"] = {"absent": f"hub.demo.test/x/absent@sha256:{'0' * 64}", **factory["apps"]}
    (device.root / "factory.json").write_bytes(dump_json(factory))
    status, _, err = run("run", "--factory")
    assert status == 3 and "absent" in err
    assert device.states() == {"running"}


def test_a_second_command_is_told_who_is_at_work(device, run):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom composeapps.records.lock import exclusive\n"
         "with exclusive(sys.argv[1]):\n print('held', flush=True)\n sys.stdin.read()",
         str(device.root / "state" / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    status, _, err = run("run", device.name)
    holder.communicate()
    assert status == 9 and f"process {holder.pid}" in err
    assert run("run", device.name)[0] == 0


def _kill_when_it_says(mark, device):
    command = [sys.executable, "-m", "composeapps.cli.main", "--config", str(device.config), "run", "--factory"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        for line in child.stderr:
            if mark in line:
                os.kill(child.pid, signal.SIGKILL)
                break


def test_killed_at_random_moments_the_next_run_finishes(device, run):
    for mark in ("loading", "bundle unpacked", "starting"):
        _kill_when_it_says(mark, device)
    assert run("run", "--factory")[0] == 0
    assert run("check")[0] == 0
    assert run("ps")[0] == 0
    # The app's directory and the agent's own, with nothing unfinished.
    assert {p.name for p in device.compose.parent.iterdir()} == {device.name, ".composeapps"}
    assert {p.name for p in (device.compose.parent / ".composeapps" / device.name).iterdir()} == {
        "record.json", "files", "versions"}


def test_a_full_disk_under_the_compose_root(device, run, small_disk):
    with open(small_disk / "fill", "wb", buffering=0) as fill, contextlib.suppress(OSError):
        while True:
            fill.write(bytes(4096))
    status, _, err = run("--compose-root", str(small_disk / "compose"), "install", device.name)
    assert status == 7 and "the file system is full" in err and "Traceback" not in err
    (small_disk / "fill").unlink()
    assert run("--compose-root", str(small_disk / "compose"), "install", device.name)[0] == 0


@pytest.fixture
def factory_store(device):
    """The read-only store of the device's image, as a factory partition has it."""
    shutil.copytree(device.store.root, device.root / "factory")
    with open(device.config, "a") as config:
        config.write(f'factory_store = "{device.root}/factory"\n')
    return Store(device.root / "factory")


def _reset(device):
    for name in ("store", "state", "compose"):
        shutil.rmtree(device.root / name, ignore_errors=True)


def test_a_factory_reset_is_undone_from_the_factory_store(device, run, factory_store):
    assert run("run", "--factory")[0] == 0
    _reset(device)
    status, _, err = run("run", "--factory")
    assert status == 0 and f"restoring from {factory_store.root}" in err
    assert device.states() == {"running"}
    assert run("check")[0] == 0


def test_a_damaged_blob_is_taken_from_the_factory_store(device, run, factory_store):
    layer = next(iter(device.app.images.values())).variants[0].document.layers[-1]
    path = device.store.blob_path(layer.digest)
    path.write_bytes(bytes(path.stat().st_size))
    assert run("check", "--store-only")[0] == 4
    assert run("run", device.name)[0] == 0
    assert run("check")[0] == 0 and device.states() == {"running"}


def test_a_factory_store_that_is_damaged_too_is_named(device, run, factory_store):
    layer = next(iter(device.app.images.values())).variants[0].document.layers[0]
    _reset(device)
    path = factory_store.blob_path(layer.digest)
    path.write_bytes(bytes(path.stat().st_size))
    status, _, err = run("run", "--factory")
    assert status == 4 and f"blob {layer.digest} in {factory_store.root} is damaged" in err
    assert Store(device.root / "store").list_apps() == []


def test_restoring_that_was_killed_goes_on_where_it_was(device, run, factory_store):
    _reset(device)
    (device.store.ingest).mkdir(parents=True)
    (device.store.ingest / "0.tmp").write_bytes(b"what a killed writer left")
    _kill_when_it_says("restoring", device)
    assert run("run", "--factory")[0] == 0
    assert run("check")[0] == 0
    assert list(device.store.ingest.iterdir()) == []
