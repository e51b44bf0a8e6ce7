# SPDX-License-Identifier: MIT
"""composeapps update against a real registry and a real dockerd: what changes, what stays, what is told."""

import json
import re

import pytest

from composeapps.records import history
from support.updating import SICK, WELL, service, shell

pytestmark = pytest.mark.root


@pytest.fixture
def versions(publisher, name):
    """Two versions of an app: of three services one has another image in the second, one is new, one is gone."""
    first = {"db": service("db"), "web": service("web 1", healthcheck=WELL), "gone": service("gone")}
    second = {"db": first["db"], "web": service("web 2", healthcheck=WELL), "new": service("gone")}
    return publisher.version(name, first), publisher.version(name, second)


def test_an_update_touches_only_what_changed(device, run, name, versions):
    status, out, err = run("update", versions[0], "--json")
    assert status == 0, err
    assert json.loads(out) == [{"app": name, "source": "", "target": versions[0], "result": "updated", "ok": True}]
    assert device.problems(name, versions[0]) == []
    before = device.started(name)

    plan = json.loads(run("update", versions[1], "--plan", "--json")[1])[0]
    text = run("update", versions[1], "--plan")[1]
    assert device.started(name) == before and device.installed(name) == versions[0]

    status, _, err = run("update", versions[1])
    assert status == 0, err
    assert device.problems(name, versions[1]) == []
    after = device.started(name)
    assert after["db"] == before["db"]
    assert after["web"] != before["web"]
    assert set(after) == {"db", "web", "new"}
    # What is gone back to without a network is kept.
    assert device.states.get(name).previous == versions[0]
    assert {str(ref) for ref in device.store.list_apps()} == set(versions)

    # The plan said so before.
    assert {each["name"]: each["action"] for each in plan["services"]} == {
        "db": "unchanged", "web": "restarted", "new": "started", "gone": "removed"}
    assert next(each for each in plan["services"] if each["name"] == "web")["reasons"] == ["image"]
    sizes = {blob["digest"]: blob["size"] for blob in plan["fetch"]["blobs"]}
    assert sizes == {digest: device.store.size_of(digest) for digest in sizes} and len(sizes) >= 5
    assert plan["fetch"]["bytes"] == sum(sizes.values())
    assert [each["layers"] for each in plan["load"]["images"]] == [2, 2]
    for word, action in (("restarted", "web"), ("started", "new"), ("removed", "gone"), ("unchanged", "db")):
        assert re.search(rf"^  {word} +{action}\b", text, re.M), text
    assert f"({plan['fetch']['bytes']} bytes) in {len(sizes)} blobs" in text
    for image in plan["load"]["images"]:
        assert f"{image['image']}: " in text and f"({image['size']} bytes) in 2 layers" in text
    assert all(f"space     {volume['path']}:" in text for volume in plan["volumes"]) and plan["volumes"]


def test_the_installed_version_needs_no_registry_and_changes_nothing(device, run, pair, no_registry):
    before = device.started(pair.name)
    no_registry()
    status, out, err = run("update", pair.installed, "--json")
    assert (status, json.loads(out)[0]["result"]) == (0, "unchanged"), err
    assert "would be done" in run("update", "--plan", pair.installed)[1]
    assert device.started(pair.name) == before
    assert run("update") == (0, "no update is unfinished\n", "")


def test_a_stopped_app_gets_the_version_and_stays_stopped(device, run, name, publisher):
    # The second could never become healthy, so it also shows that nothing was waited for.
    versions = [publisher.version(name, {"web": service(number, healthcheck=check)}, {"note": number})
                for number, check in (("1", WELL), ("2", SICK))]
    assert run("update", versions[0])[0] == 0
    assert run("stop", name)[0] == 0
    status, _, err = run("update", versions[1])
    assert status == 0, err
    assert device.installed(name) == versions[1] and device.states.get(name).stopped
    assert (device.compose_root / name / "note").read_text() == "2"
    states = [c["State"]["Status"] for each in device.containers(name).values() for c in each]
    assert "running" not in states


def test_one_apps_failure_keeps_no_other_from_its_update(device, run, name, publisher, pair):
    bad = publisher.version(name, {"web": service("2", shell("exit 3"))})
    absent = f"hub.demo.test/x/absent@sha256:{'0' * 64}"
    status, out, err = run("update", bad, absent, pair.other, "--soak", "1", "--json")
    assert status == 14, err
    results = {each["app"]: (each["result"], each["ok"]) for each in json.loads(out)}
    assert results == {name: ("rolled-back", False), "absent": ("failed", False), pair.name: ("updated", True)}
    assert device.problems(pair.name, pair.other) == []
    assert device.containers(name) == {}
    # Of the one that nobody can fetch nothing is left that would be tried for ever.
    assert run("update")[1] == "no update is unfinished\n"


def test_bad_references_are_refused_in_one_sentence(run, name):
    pinned = f"hub.demo.test/x/{name}@sha256:"
    for refs, words in (((f"hub.demo.test/x/{name}:latest",), "digest"),
                        ((pinned + "0" * 64, pinned + "1" * 64), "two versions")):
        status, _, err = run("update", *refs)
        assert status == 2 and words in err and err.count("\n") == 1


def test_a_boot_keeps_what_was_updated_until_an_image_brings_a_new_version(device, run, pair):
    old, new = pair.installed, pair.other
    factory = device.root / "factory.json"
    factory.write_text(json.dumps({"apps": {pair.name: old}}))
    assert run("run", "--factory", "--installed")[0] == 0
    assert run("update", new)[0] == 0
    device.remove_containers()
    assert run("run", "--factory", "--installed")[0] == 0
    assert device.problems(pair.name, new) == []
    # Two versions are in the store: the app's name means the installed one.
    device.remove_containers()
    assert run("run", pair.name)[0] == 0
    assert device.problems(pair.name, new) == []
    assert run("check", pair.name)[0] == 0
    assert json.loads(run("show", pair.name, "--json")[1])["uri"] == new

    # An image with a version that the device has not met goes through the update's gate, once.
    third = pair.version(service("3", healthcheck=WELL))
    assert run("pull", third)[0] == 0
    factory.write_text(json.dumps({"apps": {pair.name: third}}))
    for _boot in range(2):
        assert run("run", "--factory", "--installed")[0] == 0
        assert device.problems(pair.name, third) == []
    last = history.entries(device.states, pair.name)[-1]
    assert (last["action"], last["source"], last["target"], last["result"]) == ("update", new, third, "committed")
    # The slot of the OS is rolled back: its image brings the first version again, which stays away unless asked for.
    factory.write_text(json.dumps({"apps": {pair.name: old}}))
    assert run("run", "--factory", "--installed")[0] == 0
    assert device.problems(pair.name, third) == []
    assert run("run", "--factory")[0] == 0
    assert device.problems(pair.name, old) == []
    factory.unlink()


@pytest.mark.parametrize("strategy", ["kill-then-download", "delete-then-download"])
def test_a_service_that_was_stopped_for_a_download_that_failed_runs_again(device, run, name, publisher, registry,
                                                                         strategy):
    labels = {"web": {"composeapps.update.strategy": strategy}}
    versions = [publisher.version(name, {"web": service(f"{strategy} {number}")}, labels=labels) for number in "12"]
    assert run("update", versions[0])[0] == 0
    before = device.started(name)
    # The registry has lost the layer that only the second one has.
    registry.blob_path(publisher.image("web", f"{strategy} 2").document["layers"][-1]["digest"]).unlink()
    status, _, err = run("update", versions[1])
    assert status in (3, 5), err
    assert device.problems(name, versions[0]) == []
    assert device.started(name) != before
    assert run("rollback", name)[0] == 0
    assert run("update")[1] == "no update is unfinished\n"
