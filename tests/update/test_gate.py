# SPDX-License-Identifier: MIT
"""The health gate, going back, and the rejection of versions that failed too often."""

import json
import os

import pytest

from composeapps.errors import NotRunningError
from composeapps.installed.install import load_from_store
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal
from composeapps.update import health
from support.updating import SICK, service, shell

pytestmark = pytest.mark.root


BROKEN = {
    "healthcheck": (service("2", shell("echo warming up; exec /bin/busybox sleep 100000"), healthcheck=SICK),
                    ("service web", "unhealthy", "warming up")),
    "crash": (service("2", shell("echo no such table; exit 3"), restart="always"),
              ("service web", "again and again", "no such table")),
    "exit": (service("2", shell("echo cannot go on >&2; exit 4")),
             ("service web", "ended with status 4", "cannot go on")),
    "never starts": (service("2", ("/bin/absent",)), ("/bin/absent",)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_version_that_is_not_well_is_taken_back(device, run, pair, kind, no_registry):
    description, words = BROKEN[kind]
    device.configure(health_timeout=2, soak_time=1)
    version = pair.version(description, note="3")
    if kind == "exit":
        # Neither the update nor the way back needs a network now.
        assert run("pull", version)[0] == 0
        no_registry()
    before, note = device.started(pair.name), pair.note()
    status, _, err = run("update", version)
    assert status == 14, err
    last = err.splitlines()[-1]
    assert all(word in last for word in (*words, version, f"{pair.installed} runs again")), last
    assert device.problems(pair.name, pair.installed) == [] and pair.note() == note
    assert device.started(pair.name)["db"] == before["db"]
    assert journal.read(device.states, pair.name) is None


def test_work_that_is_done_and_well_is_no_failure(device, run, name, publisher):
    version = publisher.version(name, {
        "web": service("1"), "once": service("2", ("/bin/busybox", "true")),
        "retried": service("2", ("/bin/busybox", "true"), restart="on-failure")})
    status, _, err = run("update", version, "--soak", "1")
    assert status == 0, err
    assert device.installed(name) == version
    assert device.containers(name)["once"][0]["State"]["Status"] == "exited"


def test_a_restart_within_the_soak_time_begins_it_anew(device, run, name, publisher):
    # It lives for longer than a look at it takes, and dies within the soak time, always.
    version = publisher.version(name, {"web": service("1", shell("/bin/busybox sleep 1"), restart="always")})
    assert run("update", version, "--soak", "0")[0] == 0
    app = load_from_store(device.store, parse_pinned(version))
    with pytest.raises(NotRunningError, match="service"):
        health.wait(app, device.engine, device.load_config(), 3, 5)


def test_a_first_version_that_fails_leaves_no_app(device, run, name, publisher):
    script = "test -e /old/db && echo more > /old/more; exit 1"
    version = publisher.version(name, {"web": service("1", shell(script), volumes=["kept:/data", "./data:/old"])},
                                {"data/seed": "of the bundle", "note": "new"}, volumes={"kept": {}})
    status, _, err = run("update", version, "--soak", "1")
    assert status == 14 and "is not installed, as before" in err
    assert device.containers(name) == {} and device.installed(name) is None
    assert not (device.compose_root / name).exists()
    assert device.engine.volumes(f"com.docker.compose.project={name}")
    # What an app of older times had there is as it was.
    before = {"docker-compose.yml": "services: {}\n", "note": "mine", "data/db": "rows", "data/seed": "mine"}
    for path, text in before.items():
        (device.compose_root / name / path).parent.mkdir(parents=True, exist_ok=True)
        (device.compose_root / name / path).write_text(text)
    inode = (device.compose_root / name / "data").stat().st_ino
    assert run("update", version, "--soak", "1")[0] == 14
    found = {path: (device.compose_root / name / path).read_text() for path in before}
    assert found == before and (device.compose_root / name / "data").stat().st_ino == inode
    assert (device.compose_root / name / "data/more").exists(), "what services wrote stays, too"


def test_a_version_that_failed_too_often_is_rejected_until_it_is_allowed(device, run, pair, tmp_path):
    (tmp_path / "callback").write_text(f'#!/bin/sh\necho "$MESSAGE" >> {tmp_path}/messages\n')
    os.chmod(tmp_path / "callback", 0o755)
    device.configure(max_failures=2, soak_time=1)
    device.config.write_text(device.config.read_text().replace(
        "[composeapps]", f'callback_program = "{tmp_path}/callback"\n[composeapps]'))
    version = pair.version(service("4", shell("echo broken; exit 1")))
    assert run("update", version)[0] == 14
    status, _, err = run("update", version)
    assert status == 14 and "after 2 failures this version is rejected" in err
    assert "rejected" in (tmp_path / "messages").read_text().split()
    before = device.started(pair.name)
    status, _, err = run("update", version)
    assert status == 15 and "broken" in err and f"composeapps allow {version}" in err and err.count("\n") == 1
    assert device.started(pair.name) == before
    assert "rejected" in run("update", "--plan", version)[1]
    assert run("allow", version)[0] == 0
    assert run("update", version)[0] == 14
    assert run("allow", pair.installed)[0] == 3
    results = [entry["result"] for entry in json.loads(run("history", "--json")[1]) if entry["target"] == version]
    assert results == ["rolled-back"] * 3


def test_a_project_that_is_another_apps_is_an_obstacle_and_no_failure(device, run, name, publisher):
    mine = publisher.version(f"{name}one", {"web": service("1")}, name=f"{name}both")
    theirs = publisher.version(f"{name}two", {"web": service("1")}, name=f"{name}both")
    assert run("update", mine, "--soak", "0")[0] == 0
    before = device.started(f"{name}one")
    status, out, _ = run("update", "--plan", theirs)
    assert status == 0 and f"obstacle  app {name}two" in out and f"'{name}both'" in out
    status, _, err = run("update", theirs)
    assert status == 2 and f"app {name}one has the compose project's name" in err
    assert device.started(f"{name}one") == before and device.containers(f"{name}two") == {}
    assert run("allow", theirs)[0] == 3, "it counts as no failure"
    assert run("rollback", f"{name}two")[0] == 0


def test_a_service_that_the_env_file_turns_on_is_looked_at(device, run, name, publisher):
    def version(command):
        return publisher.version(name, {"web": service("1"), "extra": service("1", command, profiles=["more"])},
                                 {".env": "COMPOSE_PROFILES=less,more\n"})

    good = version(shell("exec /bin/busybox sleep 100000"))
    assert run("update", good, "--soak", "0")[0] == 0
    status, _, err = run("update", version(shell("echo out of order; exit 5")), "--soak", "1")
    assert status == 14 and "service extra ended with status 5; its last words: out of order" in err
    assert device.problems(name, good) == []
