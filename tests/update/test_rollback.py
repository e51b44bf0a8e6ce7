# SPDX-License-Identifier: MIT
"""composeapps rollback: back to the version before, from the store."""

import json

import pytest

from composeapps.records import journal
from support.updating import service

pytestmark = pytest.mark.root


def test_there_and_back_without_a_registry(device, run, pair, no_registry):
    old, new = pair.installed, pair.other
    note = pair.note()
    assert run("update", new)[0] == 0
    no_registry()
    status, out, err = run("rollback", pair.name, "--json")
    assert status == 0, err
    assert json.loads(out) == [{"app": pair.name, "source": new, "target": old, "result": "updated", "ok": True}]
    assert device.problems(pair.name, old) == [] and pair.note() == note
    assert run("rollback", pair.name, "--reject")[0] == 0
    assert device.problems(pair.name, new) == []
    status, _, err = run("update", old)
    assert status == 15 and "a user rejected it" in err
    # What a user asks for by its name is not refused.
    assert run("rollback", pair.name)[0] == 0
    assert device.installed(pair.name) == old
    run("allow", old)


def test_nothing_to_go_back_to(run, name, publisher):
    assert run("rollback", "bakery")[0] == 3
    version = publisher.version(name, {"web": service("1")})
    assert run("update", version)[0] == 0
    status, _, err = run("rollback", name)
    assert status == 3 and f"{version} is the first one" in err


def test_an_update_that_touched_nothing_is_dropped(device, run, pair):
    name, before = pair.name, device.started(pair.name)
    journal.write(device.states, journal.new(name, pair.installed, pair.other))
    status, _, err = run("rollback", name)
    assert status == 0 and "dropped" in err
    assert device.started(name) == before and device.problems(name, pair.installed) == []
    assert journal.read(device.states, name) is None
