# SPDX-License-Identifier: MIT
"""composeapps rollback: back to the version before, from the store."""

import json

import pytest

from composeapps.update import journal
from support.updating import service

pytestmark = pytest.mark.root


@pytest.fixture
def versions(device, run, name, publisher):
    """Two versions; the second is installed, by an update of the first."""
    found = [publisher.version(name, {"web": service(number)}, {"note": number}) for number in "12"]
    for version in found:
        assert run("update", version)[0] == 0
    return found




def test_there_and_back_without_a_registry(device, run, name, versions, monkeypatch, registry, free_port):
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", f"{registry.host}=http://127.0.0.1:{free_port}")
    status, out, err = run("rollback", name, "--json")
    assert status == 0, err
    assert json.loads(out) == [
        {"app": name, "source": versions[1], "target": versions[0], "result": "updated", "ok": True}]
    assert device.problems(name, versions[0]) == []
    assert (device.compose_root / name / "note").read_text() == "1"
    assert run("rollback", name, "--reject")[0] == 0
    assert device.problems(name, versions[1]) == []
    status, _, err = run("update", versions[0])
    assert status == 15 and "a user rejected it" in err
    # What a user asks for by its name is not refused.
    assert run("rollback", name)[0] == 0
    assert device.installed(name) == versions[0]


def test_nothing_to_go_back_to(run, name, publisher):
    assert run("rollback", "bakery")[0] == 3
    version = publisher.version(name, {"web": service("1")})
    assert run("update", version)[0] == 0
    status, _, err = run("rollback", name)
    assert status == 3 and f"{version} is the first one" in err


def test_an_update_that_touched_nothing_is_dropped(device, run, name, versions):
    before = device.started(name)
    journal.write(device.states, journal.new(name, versions[1], versions[0]))
    status, _, err = run("rollback", name)
    assert status == 0 and "dropped" in err
    assert device.started(name) == before and device.problems(name, versions[1]) == []
    assert journal.read(device.states, name) is None
