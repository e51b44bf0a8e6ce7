# SPDX-License-Identifier: MIT
"""Updates that were cut off: what the next run makes of what it finds."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from composeapps.records import history, journal, sealed
from composeapps.records.state import StateDirectory
from composeapps.update import retreat
from support.updating import service, shell

pytestmark = pytest.mark.root


def killed_at(device, place, *words):
    """Run a command and have it kill itself at a place of its journal."""
    process = device.process(*words, module="kills.driver", more={"KILL_AT": place}, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err


def test_a_boot_finishes_what_was_switched_when_the_power_went(device, run, pair):
    killed_at(device, "verifying:after", "update", pair.other)
    # dockerd brings back nothing that has no restart policy.
    device.remove_containers()
    status, _, err = run("run", "--installed")
    assert status == 0, err
    assert f"going on with the update to {pair.other}" in err
    assert device.problems(pair.name, pair.other) == []
    assert device.states.get(pair.name).previous == pair.installed


def test_an_app_between_two_versions_can_be_stopped_and_stays_so(device, run, pair):
    killed_at(device, "switching:after", "update", pair.other)
    status, _, err = run("stop", pair.name)
    assert status == 0 and "goes on without a start" in err, err
    assert run("update")[0] == 0
    assert device.installed(pair.name) == pair.other and device.states.get(pair.name).stopped
    assert not any(each["State"]["Running"] for found in device.containers(pair.name).values() for each in found)
    assert run("run", pair.name)[0] == 0
    assert device.problems(pair.name, pair.other) == []


def test_what_was_fetched_needs_no_registry_to_go_on(device, run, pair, no_registry):
    killed_at(device, "fetched:after", "update", pair.other)
    no_registry()
    # A boot starts what is installed, and leaves the update to whoever has time for it.
    assert run("run", "--installed")[0] == 0
    assert device.problems(pair.name, pair.installed) == []
    status, out, err = run("update", "--json")
    assert (status, json.loads(out)[0]["result"]) == (0, "updated"), err
    assert device.problems(pair.name, pair.other) == []


def test_another_version_takes_the_place_of_one_that_is_being_fetched(device, run, pair):
    killed_at(device, "fetching:after", "update", pair.other)
    third = pair.version(service("3"))
    assert run("update", third)[0] == 0
    assert device.problems(pair.name, third) == []
    assert run("update")[1] == "no update is unfinished\n"


def test_an_update_that_takes_the_device_down_each_time_is_given_up(device, run, pair):
    device.configure(max_failures=2)
    killed_at(device, "verifying:after", "update", pair.other)
    killed_at(device, "verifying:after", "update")
    status, _, err = run("update")
    assert status == 14 and "2 attempts to switch to it were cut off" in err
    assert device.problems(pair.name, pair.installed) == []


def test_ctrl_c_ends_it_in_order_and_is_no_attempt(device, run, pair):
    device.configure(health_timeout=60)
    never = pair.version(service("3", healthcheck={
        "test": ["CMD", "/bin/busybox", "test", "-e", "/well"], "interval": "1s"}))
    with device.process("update", never, stderr=subprocess.PIPE) as process:
        while getattr(journal.read(device.states, pair.name), "step", "") != journal.VERIFYING:
            assert process.poll() is None, process.stderr.read()
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "'composeapps update' goes on with it" in err
    assert "Traceback" not in err
    entry = journal.read(device.states, pair.name)
    assert entry.begun and entry.attempt == 0
    container = device.containers(pair.name)["web"][0]["Id"]
    device.engine._json("POST", f"/containers/{container}/stop")
    # What it waits for comes true, and the update goes on to its end.
    Path(device.engine.container(container)["GraphDriver"]["Data"]["UpperDir"], "well").touch()
    status, _, err = run("update")
    assert status == 0, err
    assert device.problems(pair.name, never) == []


def test_a_version_whose_blobs_were_damaged_while_it_was_switched_to_is_taken_back(device, run, pair):
    killed_at(device, "switching:after", "update", pair.other)
    manifest = device.store.blob_path(pair.other.partition("@")[2])
    manifest.write_bytes(bytes(manifest.stat().st_size))
    status, _, err = run("update")
    assert status == 14 and "is damaged" in err
    assert device.problems(pair.name, pair.installed) == []


def test_the_way_back_is_mended_before_an_update_begins(device, run, pair):
    manifest = device.store.blob_path(pair.installed.partition("@")[2])
    bundle = json.loads(manifest.read_bytes())["layers"][0]["digest"]
    device.store.blob_path(bundle).unlink()
    assert run("update", pair.other)[0] == 0
    assert run("check", pair.installed, "--store-only")[0] == 0
    assert run("rollback", pair.name)[0] == 0
    assert device.problems(pair.name, pair.installed) == []


def test_without_dockerd_the_journal_waits(device, run, pair, tmp_path):
    killed_at(device, "switching:after", "update", pair.other)
    before = journal.read(device.states, pair.name)
    for words in (("run", "--installed"), ("update",)):
        status, _, err = run("--docker-host", f"unix://{tmp_path}/none.sock", *words)
        assert status == 6 and "cannot be reached" in err
        assert journal.read(device.states, pair.name) == before
    assert run("update")[0] == 0
    assert device.problems(pair.name, pair.other) == []


def test_a_journal_that_cannot_be_read_is_set_aside(device, run, pair):
    killed_at(device, "verifying:after", "update", pair.other)
    path = journal.path_of(device.states, pair.name)
    for place in (path, sealed.copy_of(device.states.root, f"updates/{path.name}")):
        place.write_bytes(path.read_bytes()[:40])
    status, _, err = run("run", "--installed")
    assert status == 0 and "cannot be read and was moved" in err
    assert history.entries(device.states, pair.name)[-1]["code"] == 4
    assert device.problems(pair.name, pair.installed) == []
    assert not path.exists()


def test_a_journal_that_is_damaged_goes_on_from_its_second_copy(device, run, pair):
    killed_at(device, "switching:after", "update", pair.other)
    path = journal.path_of(device.states, pair.name)
    path.write_bytes(b"")
    status, _, err = run("update")
    assert status == 0 and f"{path} is empty: it is made anew" in err
    assert device.problems(pair.name, pair.other) == []


def test_a_lost_state_file_makes_no_failed_update_a_removal(device, run, pair):
    for place in (device.states.root, device.states.root / sealed.COPIES):
        (place / "apps" / f"{pair.name}.json").write_text("{")
    broken = pair.version(service("3", shell("exit 1")))
    assert run("update", broken, "--soak", "1")[0] == 14
    assert device.problems(pair.name, pair.installed) == []


def test_a_version_that_does_not_come_back_up_gives_way_to_another(device, run, pair, monkeypatch):
    """The old one needs what is gone from the device since, the new one fails: a third one is the way out."""
    monkeypatch.setattr(retreat, "PAUSES", (0, 0))
    needed = device.root / "needed"
    needed.mkdir()
    mount = {"type": "bind", "source": str(needed), "target": "/needed"}
    first = pair.version(service("4", volumes=[mount]))
    assert run("update", first)[0] == 0
    needed.rmdir()
    broken = pair.version(service("5", shell("exit 1")))
    status, _, err = run("update", broken, "--soak", "1")
    assert status == 16 and err.count("it is tried again in 0 s") == 2
    assert run("update")[0] == 16
    good = pair.version(service("6"))
    status, _, err = run("update", good)
    assert status == 0, err
    assert device.problems(pair.name, good) == []


@pytest.fixture
def small_disk(device, factory_name):
    """A file system of 1 MB, below the daemon's directory, with the device's state on it."""
    place = device.root / f"disk{factory_name}"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    states, device.states = device.states, StateDirectory(place / "state")
    yield place
    device.states = states
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_under_the_journal(device, run, name, publisher, small_disk, tmp_path):
    """Full from the start: nothing is begun. Filled in the middle: the room that is kept carries it to its end."""
    fill = small_disk / "fill"
    device.configure(state_dir=str(device.states.root), soak_time=1)
    good, broken, better = (publisher.version(name, {"web": description}) for description in (
        service("1"), service("2", shell("exit 1")), service("3")))
    assert run("update", good)[0] == 0
    before = device.started(name)
    _fill(fill)
    status, _, err = run("update", better)
    assert status in (7, 12) and "Traceback" not in err
    assert device.started(name) == before
    fill.unlink()

    callback = tmp_path / "callback"
    callback.write_text(f'#!/bin/sh\n[ "$MESSAGE" != install-pre ] || cat /dev/zero > {fill} 2>/dev/null\nexit 0\n')
    callback.chmod(0o755)
    device.config.write_text(device.config.read_text().replace(
        "[composeapps]", f'callback_program = "{callback}"\n[composeapps]'))
    for version, expected, left in ((broken, 14, good), (better, 0, better)):
        status, _, err = run("update", version)
        assert status == expected, err
        assert device.problems(name, left) == []
        fill.unlink()


def test_a_full_disk_keeps_no_installed_app_from_starting(device, run, name, publisher, small_disk):
    device.configure(state_dir=str(device.states.root))
    uri = publisher.version(name, {"web": service("1"), "db": service("db")})
    assert run("update", uri)[0] == 0
    _fill(small_disk / "fill")
    for found in device.containers(name).values():
        device.engine.stop(found[0]["Id"])
    status, _, err = run("run", "--installed")
    assert status == 0, err
    assert device.problems(name, uri) == []
    device.remove_containers()
    status, _, err = run("run", "--installed")
    assert status == 0, err
    assert device.problems(name, uri) == []
    (small_disk / "fill").unlink()


def _fill(path):
    subprocess.run(["sh", "-c", 'cat /dev/zero > "$1"', "sh", str(path)], check=False, stderr=subprocess.DEVNULL)


def test_force_and_soak_hold_for_what_is_gone_on_with(device, run, name, publisher):
    holds = shell("mkdir -p /tmp/composeapps; echo me > /tmp/composeapps/updates.lock; sleep 100000")
    old, new = (publisher.version(name, {"web": service(number, holds)}) for number in "12")
    assert run("update", old)[0] == 0
    assert run("update", new)[0] == 13
    assert run("update")[0] == 13
    status, _, err = run("update", "--force", "--soak", "1")
    assert status == 0 and "watching them for 1 s" in err, err
    assert device.problems(name, new) == []
