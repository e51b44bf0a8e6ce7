# SPDX-License-Identifier: MIT
"""Updates that were cut off: what the next run makes of what it finds."""

import json
import os
import signal
import subprocess

import pytest

from composeapps.update import journal
from support.updating import WELL, service, shell

pytestmark = pytest.mark.root


@pytest.fixture
def versions(device, run, name, publisher):
    """Two versions of an app, the first of which runs."""
    found = [publisher.version(name, {"db": service("db"), "web": service(number, healthcheck=WELL)}, {"note": number})
             for number in "12"]
    assert run("update", found[0])[0] == 0
    return found


def killed_at(device, place, *words):
    """Run a command and have it kill itself at a place of its journal."""
    process = device.process(*words, module="kills.driver", more={"KILL_AT": place}, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err


def test_a_boot_finishes_what_was_switched_when_the_power_went(device, run, name, versions):
    killed_at(device, "verifying:after", "update", versions[1])
    # dockerd brings back nothing that has no restart policy.
    device.remove_containers()
    status, _, err = run("run", "--installed")
    assert status == 0, err
    assert f"going on with the update to {versions[1]}" in err
    assert device.problems(name, versions[1]) == []
    assert device.states.get(name).previous == versions[0]


def test_what_was_fetched_needs_no_registry_to_go_on(device, run, name, versions, monkeypatch, registry, free_port):
    killed_at(device, "fetched:after", "update", versions[1])
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", f"{registry.host}=http://127.0.0.1:{free_port}")
    # A boot starts what is installed, and leaves the update to whoever has time for it.
    assert run("run", "--installed")[0] == 0
    assert device.problems(name, versions[0]) == []
    status, out, err = run("update", "--json")
    assert (status, json.loads(out)[0]["result"]) == (0, "updated"), err
    assert device.problems(name, versions[1]) == []


def test_another_version_takes_the_place_of_one_that_is_being_fetched(device, run, name, versions, publisher):
    killed_at(device, "fetching:after", "update", versions[1])
    third = publisher.version(name, {"web": service("3")})
    assert run("update", third)[0] == 0
    assert device.problems(name, third) == []
    assert run("update")[1] == "no update is unfinished\n"


def test_an_update_that_takes_the_device_down_each_time_is_given_up(device, run, name, versions):
    device.configure(max_failures=2)
    killed_at(device, "verifying:after", "update", versions[1])
    killed_at(device, "verifying:after", "update")
    status, _, err = run("update")
    assert status == 14 and "2 attempts to switch to it were cut off" in err
    assert device.problems(name, versions[0]) == []


def test_ctrl_c_ends_it_in_order_and_is_no_attempt(device, run, name, versions, publisher):
    device.configure(health_timeout=60)
    never = publisher.version(name, {"db": service("db"), "web": service("3", healthcheck={
        "test": ["CMD", "/bin/busybox", "test", "-e", "/well"], "interval": "1s"})})
    with device.process("update", never, stderr=subprocess.PIPE) as process:
        while journal.read(device.states, name) is None or journal.read(device.states, name).step != journal.VERIFYING:
            assert process.poll() is None, process.stderr.read()
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "'composeapps update' goes on with it" in err
    assert "Traceback" not in err
    entry = journal.read(device.states, name)
    assert entry.begun and entry.attempt == 0
    container = device.containers(name)["web"][0]["Id"]
    device.engine._json("POST", f"/containers/{container}/stop")
    # What it waits for comes true, and the update goes on to its end.
    config = device.root / "well"
    config.write_text("")
    root = device.engine.container(container)["GraphDriver"]["Data"]["UpperDir"]
    os.makedirs(root, exist_ok=True)
    open(os.path.join(root, "well"), "w").close()
    status, _, err = run("update")
    assert status == 0, err
    assert device.problems(name, never) == []


def test_a_version_whose_blobs_were_damaged_while_it_was_switched_to_is_taken_back(device, run, name, versions):
    killed_at(device, "switching:after", "update", versions[1])
    manifest = device.store.blob_path(versions[1].partition("@")[2])
    manifest.write_bytes(bytes(manifest.stat().st_size))
    status, _, err = run("update")
    assert status == 14 and "is damaged" in err
    assert device.problems(name, versions[0]) == []


def test_the_way_back_is_mended_before_an_update_begins(device, run, name, versions):
    manifest = device.store.blob_path(versions[0].partition("@")[2])
    bundle = json.loads(manifest.read_bytes())["layers"][0]["digest"]
    device.store.blob_path(bundle).unlink()
    assert run("update", versions[1])[0] == 0
    assert run("check", versions[0], "--store-only")[0] == 0
    assert run("rollback", name)[0] == 0
    assert device.problems(name, versions[0]) == []


def test_without_dockerd_the_journal_waits(device, run, name, versions, tmp_path):
    killed_at(device, "switching:after", "update", versions[1])
    before = journal.read(device.states, name)
    for words in (("run", "--installed"), ("update",)):
        status, _, err = run("--docker-host", f"unix://{tmp_path}/none.sock", *words)
        assert status == 6 and "cannot be reached" in err
        assert journal.read(device.states, name) == before
    assert run("update")[0] == 0
    assert device.problems(name, versions[1]) == []


def test_a_journal_that_cannot_be_read_is_set_aside(device, run, name, versions):
    killed_at(device, "verifying:after", "update", versions[1])
    path = journal.path_of(device.states, name)
    path.write_bytes(path.read_bytes()[:40])
    status, _, err = run("run", "--installed")
    assert status == 0 and "cannot be read and was renamed" in err
    assert device.problems(name, versions[0]) == []
    assert not path.exists()


def test_a_lost_state_file_makes_no_failed_update_a_removal(device, run, name, versions, publisher):
    (device.states.root / "apps" / f"{name}.json").write_text("{")
    broken = publisher.version(name, {"web": service("3", shell("exit 1"))})
    assert run("update", broken, "--soak", "1")[0] == 14
    assert device.problems(name, versions[0]) == []


def test_a_version_that_does_not_come_back_up_gives_way_to_another(device, run, name, versions, publisher):
    """The old one needs what is gone from the device since, the new one fails: a third one is the way out."""
    needed = device.root / "needed"
    needed.mkdir()
    first = publisher.version(name, {"web": service("4", shell("cat /needed/file && exec /bin/busybox sleep 100000"),
                                                    volumes=[{"type": "bind", "source": str(needed),
                                                              "target": "/needed"}])})
    (needed / "file").write_text("")
    assert run("update", first)[0] == 0
    (needed / "file").unlink()
    needed.rmdir()
    broken = publisher.version(name, {"web": service("5", shell("exit 1"))})
    status, _, err = run("update", broken, "--soak", "1")
    assert status == 16 and "going back" in err
    assert run("update")[0] == 16
    good = publisher.version(name, {"web": service("6")})
    status, _, err = run("update", good)
    assert status == 0, err
    assert device.problems(name, good) == []


def test_a_full_disk_under_the_journal(dockerd, registry, factory_name, name, publisher, run, device, tmp_path):
    """Full from the start: nothing is begun. Filled in the middle: the room that is kept carries it to its end."""
    place = dockerd.directory / f"disk{factory_name}"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    try:
        device.configure(state_dir=str(place / "state"), soak_time=1)
        device.states = type(device.states)(place / "state")
        versions = [publisher.version(name, {"web": service("1")}),
                    publisher.version(name, {"web": service("2", shell("exit 1"))}),
                    publisher.version(name, {"web": service("3")})]
        assert run("update", versions[0])[0] == 0
        before = device.started(name)
        _fill(place / "fill")
        status, _, err = run("update", versions[1])
        assert status in (7, 12) and "Traceback" not in err
        assert device.started(name) == before
        (place / "fill").unlink()

        callback = tmp_path / "callback"
        callback.write_text(f'#!/bin/sh\n[ "$MESSAGE" != install-pre ] || cat /dev/zero > {place}/fill 2>/dev/null\n'
                            "exit 0\n")
        callback.chmod(0o755)
        device.config.write_text(device.config.read_text().replace(
            "[composeapps]", f'callback_program = "{callback}"\n[composeapps]'))
        for version, expected, left in ((versions[1], 14, versions[0]), (versions[2], 0, versions[2])):
            status, _, err = run("update", version)
            assert status == expected, err
            assert device.problems(name, left) == []
            (place / "fill").unlink()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _fill(path):
    subprocess.run(["sh", "-c", 'cat /dev/zero > "$1"', "sh", str(path)], check=False, stderr=subprocess.DEVNULL)
