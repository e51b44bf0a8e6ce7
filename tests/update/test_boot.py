# SPDX-License-Identifier: MIT
"""What a boot makes of what was lost meanwhile, and of an image that brings other versions."""

import json
import shutil
import subprocess
import sys

import pytest

from composeapps.oci.documents import dump_json
from composeapps.oci.reference import parse_pinned
from composeapps.records import history, preloaded, rejection, sealed
from composeapps.store.preload import copy_app
from composeapps.store.store import Store
from support.updating import WELL, service, shell

pytestmark = pytest.mark.root

BOOT = ("run", "--factory", "--installed")


@pytest.fixture
def factory(device):
    """Write the image's list of preloaded apps; it and the factory store are gone afterwards."""
    path = device.root / "factory.json"
    yield lambda **apps: path.write_bytes(dump_json({"apps": apps}))
    path.unlink(missing_ok=True)
    shutil.rmtree(device.root / "factory", ignore_errors=True)


@pytest.fixture
def damage(device, pair):
    """Damage the bundle of the installed version, in the blob and what is linked to it; all is whole afterwards."""
    ref = parse_pinned(pair.installed)
    bundle = json.loads(device.store.read(ref.digest))["layers"][0]["digest"]
    path = device.store.blob_path(bundle)
    whole = path.read_bytes()

    def spoil():
        with open(path, "r+b") as stream:
            stream.write(bytes(len(whole) // 2))

    yield spoil
    if device.store.blob_path(bundle).exists():
        with open(path, "r+b") as stream:
            stream.write(whole)


def lose_state(device, name, data=b""):
    for place in (device.states.root, device.states.root / sealed.COPIES):
        (place / "apps" / f"{name}.json").write_bytes(data)


def services_run(device, name):
    return {service: [each["State"]["Status"] for each in found] for service, found in device.containers(name).items()}


RUNNING = {"db": ["running"], "web": ["running"]}


def test_a_damaged_bundle_keeps_no_app_from_starting_and_is_fetched_again(device, run, pair, damage, monkeypatch,
                                                                          registry, free_port):
    damage()
    for found in device.containers(pair.name).values():
        device.engine.stop(found[0]["Id"])
    with monkeypatch.context() as offline:
        offline.setenv("COMPOSEAPPS_ENDPOINTS", f"{registry.host}=http://127.0.0.1:{free_port}")
        offline.setattr("composeapps.pull.pull.TRIES", 1)
        status, _, err = run("run", "--installed")
        assert status == 4 and "runs with what dockerd has" in err and "cannot be fetched again now" in err
        assert services_run(device, pair.name) == RUNNING and device.installed(pair.name) == pair.installed
        status, out, _ = run("status", pair.name)
        assert status == 8 and "cannot be fetched again now" in out and f"pull --verify {pair.installed}" in out
        # What has no container any more is made from what is unpacked.
        device.remove_containers()
        status, _, err = run("run", "--installed")
        assert status == 4 and services_run(device, pair.name) == RUNNING
        assert run("stop", pair.name)[0] == 0
        assert set(sum(services_run(device, pair.name).values(), [])) == {"exited"}
        assert run("run", pair.name)[0] == 4 and services_run(device, pair.name) == RUNNING
    status, _, err = run("run", "--installed")
    assert status == 0, err
    assert device.problems(pair.name, pair.installed) == []
    last = history.entries(device.states, pair.name)[-1]
    assert [entry["result"] for entry in history.entries(device.states, pair.name)].count("failed") == 1
    assert (last["result"], last["target"]) == (history.REPAIRED, pair.installed) and "fetched again" in last["reason"]
    assert run("check", pair.installed, "--store-only")[0] == 0


def test_the_factory_store_mends_first(device, run, pair, damage, no_registry, factory):
    copy_app(device.store, Store(device.root / "factory"), parse_pinned(pair.installed))
    damage()
    no_registry()
    status, _, err = run("run", "--installed")
    assert status == 0 and "restoring from" in err
    assert device.problems(pair.name, pair.installed) == []
    assert "taken from the factory store" in history.entries(device.states, pair.name)[-1]["reason"]


def test_what_neither_runs_nor_can_be_mended_goes_back_and_that_is_told(device, run, pair, damage, monkeypatch,
                                                                        registry, free_port):
    if not device.states.get(pair.name).previous:
        assert run("update", pair.other)[0] == 0
        assert run("update", pair.installed)[0] == 0
    damage()
    device.remove_containers()
    shutil.rmtree(device.compose_root / pair.name)
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", f"{registry.host}=http://127.0.0.1:{free_port}")
    monkeypatch.setattr("composeapps.pull.pull.TRIES", 1)
    status, _, err = run(*BOOT)
    assert status == 14 and f"{pair.other} runs instead" in err, err
    assert device.problems(pair.name, pair.other) == []
    last = history.entries(device.states, pair.name)[-1]
    assert (last["action"], last["source"], last["target"]) == ("recovery", pair.installed, pair.other)
    assert "damaged" in last["reason"]
    status, out, _ = run("status", pair.name, "--json")
    error = json.loads(out)["apps"][0]["last_error"]
    assert status == 8 and error["code"] == 14 and error["uri"] == pair.installed
    # Nothing of it counts against a version, and the next boot is quiet.
    assert rejection.failures(device.states) == {} and run(*BOOT)[0] == 0


@pytest.mark.parametrize("data", [b"", b"{", b'{"uri": "", "images": {}, "stopped": false}'])
def test_a_lost_state_is_found_from_what_is_unpacked(device, run, pair, data):
    started, before = device.started(pair.name), run("status", pair.name)[0]
    lose_state(device, pair.name, data)
    assert run("status", pair.name)[0] == 8
    status, _, err = run("run", "--installed")
    assert status == 0 and f"it is {pair.installed}" in err
    assert device.problems(pair.name, pair.installed) == [] and device.started(pair.name) == started
    assert run("status", pair.name)[0] == before
    assert "by what is unpacked" in history.entries(device.states, pair.name)[-1]["reason"]


def test_a_state_that_is_gone_with_its_directory_is_found_by_the_labels_of_what_runs(device, run, pair, factory):
    started = device.started(pair.name)
    kept = device.states.root.with_name("kept")
    device.states.root.rename(kept)
    try:
        # Until then nothing is recorded, and that is not "all is well".
        for words in (["status"], ["ps"]):
            status, out, err = run(*words)
            assert status == 8 and pair.name in out and "nothing is recorded of it" in out + err
        assert run("--docker-host", "unix:///nonexistent/docker.sock", "status")[0] == 8
        assert run("--docker-host", "unix:///nonexistent/docker.sock", "ps")[0] == 6
        factory(**{pair.name: pair.other})
        status, _, err = run(*BOOT)
        assert status == 0 and pair.installed in err, err
        assert device.problems(pair.name, pair.installed) == []
        assert device.started(pair.name) == started
    finally:
        shutil.rmtree(device.states.root)
        kept.rename(device.states.root)


def test_a_damaged_name_of_a_version_in_the_store_is_written_anew(device, run, pair):
    path = device.store.app_dir(parse_pinned(pair.installed)) / "uri"
    path.write_bytes(b"")
    status, _, err = run("run", "--installed")
    assert status == 0 and "entry" in err
    assert path.read_text() == pair.installed


def test_a_lost_list_of_preloaded_versions_replaces_nothing_and_begins_anew(device, run, pair, factory):
    new = pair.version(service("list", healthcheck=WELL))
    assert run("pull", new)[0] == 0
    for place in (device.states.root, device.states.root / sealed.COPIES):
        (place / preloaded.RECORD).write_bytes(b"")
    factory(**{pair.name: new})
    for told in (True, False):
        status, _, err = run(*BOOT)
        assert status == 0 and ("the list of preloaded versions" in err) == told
        assert device.problems(pair.name, pair.installed) == []
    later = pair.version(service("later", healthcheck=WELL))
    assert run("pull", later)[0] == 0
    factory(**{pair.name: later})
    assert run(*BOOT)[0] == 0
    assert device.problems(pair.name, later) == []


@pytest.mark.parametrize("content, expected", [(b"", 4), (b'{"apps": {"a b": 1}}', 4), (None, 0)])
def test_a_damaged_list_of_preloaded_apps_keeps_no_app_from_starting(device, run, pair, factory, content, expected):
    path = device.root / "factory.json"
    if content is not None:
        path.write_bytes(content)
    (device.states.root / preloaded.RECORD).unlink(missing_ok=True)
    sealed.copy_of(device.states.root, preloaded.RECORD).unlink(missing_ok=True)
    device.remove_containers()
    status, _, err = run(*BOOT)
    assert status == expected and ("factory.json" in err) == bool(expected), err
    assert device.problems(pair.name, pair.installed) == []


def test_a_preloaded_version_that_fails_goes_back_is_rejected_and_comes_by_no_other_door(device, run, pair, factory):
    device.configure(max_failures=2, soak_time=1)
    broken = pair.version(service("9", shell("exit 1")))
    assert run("pull", broken)[0] == 0
    factory(**{pair.name: broken})
    for number in (1, 2):
        status, _, err = run(*BOOT)
        assert status == 14, err
        assert device.problems(pair.name, pair.installed) == []
        assert rejection.failures(device.states)[broken].count == number
    last = history.entries(device.states, pair.name)[-1]
    assert (last["target"], last["result"]) == (broken, "rolled-back")
    status, _, err = run(*BOOT)
    assert status == 0 and f"stays at {pair.installed}" in err
    for words in (("run", broken), ("install", broken), ("run", "--factory"), ("update", broken)):
        status, _, err = run(*words)
        assert status == 15 and "is rejected" in err, words
        assert device.problems(pair.name, pair.installed) == []


def test_a_version_that_is_named_to_run_or_install_is_an_update(device, run, pair):
    status, _, err = run("run", pair.other)
    assert status == 0, err
    assert device.problems(pair.name, pair.other) == []
    last = history.entries(device.states, pair.name)[-1]
    assert (last["action"], last["source"], last["result"]) == ("update", pair.installed, "committed")
    device.configure(soak_time=1)
    broken = pair.version(service("7", shell("exit 1")))
    assert run("pull", broken)[0] == 0
    assert run("install", broken)[0] == 14
    assert device.problems(pair.name, pair.other) == []


def test_an_image_brings_a_version_from_its_factory_store_alone(device, run, name, publisher, factory, no_registry):
    old, new = (publisher.version(name, {"web": service(number, healthcheck=WELL)}) for number in "12")
    assert run("update", old)[0] == 0
    seed = Store(device.root / "factory")
    assert run("--store", str(seed.root), "--state-dir", str(device.root / "elsewhere"), "pull", new)[0] == 0
    no_registry()
    factory(**{name: new})
    # What is to run is the image's version, and what runs is another one.
    for words in (["status", name], ["ps", name]):
        status, out, err = run(*words)
        assert status == 8 and f"the image brings {new}" in out + err
    status, _, err = run(*BOOT)
    assert status == 0, err
    assert device.problems(name, new) == []
    assert run("status", name)[0] == run("ps", name)[0] == 0
    # What somebody stopped is not to run.
    assert run("stop", name)[0] == 0
    assert run("status", name)[0] == run("ps", name)[0] == 0


def test_a_boot_waits_for_another_command(device, run, pair):
    script = ("import sys, time\nfrom composeapps.records.lock import exclusive\n"
              "with exclusive(sys.argv[1]):\n print('held', flush=True)\n sys.stdin.readline()")
    with subprocess.Popen([sys.executable, "-c", script, str(device.states.lock_file)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert run("run", pair.name)[0] == 9
        with device.process(*BOOT, stderr=subprocess.PIPE) as boot:
            assert f"waiting for process {holder.pid}" in boot.stderr.readline()
            holder.communicate("\n")
            boot.communicate(timeout=120)
    assert boot.returncode == 0


def test_a_dockerd_without_images_and_containers_gets_them_from_the_store(device, run, pair, no_registry):
    no_registry()
    device.remove_containers()
    for image in device.engine.images():
        if any(pair.name in tag for tag in image.get("RepoTags") or ()):
            device.engine.remove("images", image["Id"], force="1")
    status, _, err = run(*BOOT)
    assert status == 0, err
    assert device.problems(pair.name, pair.installed) == []
