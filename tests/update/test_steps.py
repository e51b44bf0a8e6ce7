# SPDX-License-Identifier: MIT
"""Updates in steps: each waits for the next, over whatever happens in between."""

import json

import pytest

from composeapps.records import journal
from support.updating import service

pytestmark = pytest.mark.root


def _step_of(device, pair):
    entry = journal.read(device.states, pair.name)
    return entry and (entry.step, entry.waits)


def test_fetch_install_and_start_are_an_update(device, run, pair, no_registry):
    assert run("update", "fetch", pair.other)[0] == 0
    assert _step_of(device, pair) == ("fetched", True) and device.problems(pair.name, pair.installed) == []
    no_registry()
    # Neither a boot nor an update of what was cut off goes on with it.
    assert run("run", "--installed")[0] == run("update")[0] == 0
    assert _step_of(device, pair) == ("fetched", True)
    assert run("status")[0] == 0
    status, out, _ = run("update", "status", "--json")
    entry, = json.loads(out)
    assert status == 0 and (entry["app"], entry["step"], entry["waits"]) == (pair.name, "fetched", True)
    status, _, err = run("update", "install")
    assert status == 0 and "waits for 'composeapps update start'" in err
    assert _step_of(device, pair) == ("installed", True) and device.problems(pair.name, pair.installed) == []
    status, out, err = run("update", "start", "--json")
    assert (status, json.loads(out)[0]["result"]) == (0, "updated"), err
    assert device.problems(pair.name, pair.other) == [] and _step_of(device, pair) is None
    assert run("update", "start")[1] == run("update", "status")[1] == "no update is unfinished\n"


def test_an_update_by_its_reference_goes_on_to_the_end(device, run, pair):
    assert run("update", "install", pair.other)[0] == 0
    # A step that lies behind changes nothing.
    assert run("update", "fetch", pair.other)[0] == 0 and _step_of(device, pair) == ("installed", True)
    assert run("update", pair.other)[0] == 0
    assert device.problems(pair.name, pair.other) == []


def test_what_waits_can_be_cancelled(device, run, pair):
    assert run("update", "fetch", pair.other)[0] == 0
    assert run("update", "cancel", "nothing")[0] == 3
    status, _, err = run("update", "cancel", pair.name)
    assert status == 0 and f"stays at {pair.installed}" in err
    assert _step_of(device, pair) is None and device.problems(pair.name, pair.installed) == []
    assert run("update", "cancel")[1] == "no update is unfinished\n"


def test_what_has_begun_to_switch_is_not_cancelled(device, run, pair):
    journal.write(device.states, journal.new(pair.name, pair.installed, pair.other, hold="fetched"), step="switching",
                  attempt=1)
    status, _, err = run("update", "cancel")
    assert status == 2 and "has begun to switch" in err
    assert run("update")[0] == 0 and device.problems(pair.name, pair.other) == []


@pytest.mark.parametrize(("words", "says"), [
    (["init", "x"], "--plan"), (["complete"], "update start"), (["shop"], "neither a version"),
    (["fetch", "--plan"], "leave 'fetch' out"), (["fetch", "shop"], "shop"),
])
def test_wrong_steps_are_told(run, words, says):
    status, _, err = run("update", *words)
    assert status == 2 and says in err


def test_a_new_version_takes_the_place_of_one_that_waits(device, run, pair):
    assert run("update", "fetch", pair.other)[0] == 0
    third = pair.version(service("steps"))
    assert run("update", "install", third)[0] == 0
    assert journal.read(device.states, pair.name).target == third
    assert run("update", "start")[0] == 0 and device.problems(pair.name, third) == []
