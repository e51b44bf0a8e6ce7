# SPDX-License-Identifier: MIT
"""No Target that cannot come to its end keeps the next one away, and what was preloaded is a Target like any other.

The updates of single apps are stood in for: which of them fail is what these tests are about.
"""

import json

import pytest

from composeapps.cli.config import Config
from composeapps.delivery import record, rollout
from composeapps.delivery.selection import Target
from composeapps.errors import EngineError, NotFoundError, RolledBackError, UnfinishedError
from composeapps.records import journal, reports
from composeapps.records.state import AppState
from composeapps.update.parts import Parts
from support.cuts import Cut, cut_writes


def uri(app, number):
    return f"hub.example.com/factory/{app}@sha256:{f'{app}{number}'.encode().hex():0>64}"


class Device:
    """A device on which versions (pinned references) that are in ``sick`` cannot be brought up."""

    def __init__(self, place):
        self.config = Config(tags=("main",), hardware_id="board", state_dir=place / "state", store=place / "store",
                             factory_file=place / "factory.json", factory_store=place / "factory")
        self.states, self.sick, self.stays, self.told = Parts(self.config).states, set(), set(), []
        # Of these not even the version before comes up any more.
        self.dead = set()

    def target(self, number, **apps):
        return Target(f"device-{number}", number, {app: uri(app, each) for app, each in apps.items()}, ("board",),
                      ("main",))

    def install(self, target, action=rollout.install, **options):
        """Install a Target as a command does; return what came of each app, the last of each."""
        parts = Parts(self.config, self.told.append)
        with parts.locked():
            return dict(action(parts, *([target] if target else []), **options))

    def update(self, parts, ref, hold="", **options):
        if hold:
            return {}
        if str(ref) in self.dead:
            journal.write(parts.states, journal.new(ref.app_name, "", str(ref)), step=journal.ROLLING_BACK)
            raise UnfinishedError(f"neither {ref} nor what was before comes up")
        if journal.read(parts.states, ref.app_name):
            journal.remove(parts.states, ref.app_name)
        if str(ref) in self.sick:
            raise RolledBackError(f"{ref} is not well")
        before = parts.states.get(ref.app_name)
        parts.states.put(ref.app_name, AppState(str(ref), {}, False, before.uri if before else ""))
        return {"result": "updated"}

    def take_away(self, parts, apps):
        for app in set(apps) - self.stays:
            parts.states.remove(app)
        return [(app, EngineError("it is held")) for app in apps if app in self.stays]

    def apps(self):
        return {name: int(bytes.fromhex(self.states.get(name).uri.rpartition(":")[2].lstrip("0")).decode()[-1])
                for name in self.states.names()}

    def record(self):
        return record.read(self.states)


@pytest.fixture
def device(tmp_path, monkeypatch):
    found = Device(tmp_path)
    monkeypatch.setattr(rollout.process, "update", found.update)
    monkeypatch.setattr(rollout, "_take_away", found.take_away)
    monkeypatch.setattr(rollout, "reachable", lambda engine: True)
    return found


@pytest.fixture
def stuck(device):
    """A device whose Target failed, and whose app "a" was not well before either, so that it does not go back."""
    device.install(device.target(1, a=1, b=1))
    device.sick |= {uri("a", 1), uri("b", 2)}
    ended = device.install(device.target(2, a=2, b=2, c=2))
    assert isinstance(ended["a"], UnfinishedError)
    assert device.apps() == {"a": 2, "b": 1} and device.record().rollout.step == record.GOING_BACK
    return device


def test_a_target_that_does_not_go_back_does_not_keep_its_mend_away(stuck):
    stuck.install(stuck.target(3, a=3, b=3))
    assert stuck.apps() == {"a": 3, "b": 3}
    kept = stuck.record()
    assert (kept.current.name, kept.previous.name, kept.rollout) == ("device-3", "device-1", None)


def test_what_was_not_brought_back_is_when_the_next_target_fails(stuck):
    """Also of an app that the next Target has not."""
    stuck.sick.add(uri("b", 3))
    stuck.install(stuck.target(3, b=3))
    assert stuck.record().rollout.target.name == "device-3"
    assert stuck.record().rollout.step == record.GOING_BACK and stuck.apps() == {"a": 2, "b": 1}
    stuck.sick.clear()
    stuck.install(None, rollout.resume)
    assert stuck.apps() == {"a": 1, "b": 1}
    assert (stuck.record().current.name, stuck.record().rollout) == ("device-1", None)


def test_an_app_of_which_no_version_comes_up_does_not_keep_its_mend_away(device):
    device.install(device.target(1, a=1, b=1))
    device.dead.add(uri("b", 2))
    assert isinstance(device.install(device.target(2, a=2, b=2))["b"], UnfinishedError)
    assert device.record().rollout.step == record.SWITCHING and device.apps() == {"a": 2, "b": 1}
    device.sick.add(uri("b", 3))
    device.install(device.target(3, a=3, b=3))
    assert device.apps() == {"a": 1, "b": 1} and device.record().rollout is None
    device.install(device.target(4, a=4, b=4))
    assert device.apps() == {"a": 4, "b": 4} and device.record().current.name == "device-4"


def test_without_dockerd_and_for_a_rollback_nothing_is_given_up(stuck, monkeypatch):
    stuck.install(stuck.target(1, a=1, b=1), kind=journal.ROLLBACK)
    assert stuck.record().rollout.target.name == "device-2"
    monkeypatch.setattr(rollout, "reachable", lambda engine: False)
    stuck.install(stuck.target(3, a=3, b=3))
    assert stuck.record().rollout.target.name == "device-2" and stuck.apps() == {"a": 2, "b": 1}


def test_an_app_that_cannot_be_removed_keeps_no_target_away_and_goes_later(device):
    device.install(device.target(1, a=1, b=1))
    device.stays = {"b"}
    assert isinstance(device.install(device.target(2, a=2))["b"], UnfinishedError)
    assert isinstance(device.install(device.target(3, a=3))["b"], UnfinishedError)
    assert device.apps() == {"a": 3, "b": 1} and device.record().current.name == "device-3"
    device.stays.clear()
    device.install(None, rollout.resume)
    assert device.apps() == {"a": 3} and device.record().rollout is None


def test_a_user_goes_on_with_all_apps_of_a_target_together(device, monkeypatch):
    """Never with one of them, which nothing would bring back with the others."""
    device.install(device.target(1, a=1, b=1))
    assert set(device.install(device.target(2, a=2, b=2), hold=journal.FETCHED)) == {"a", "b"}
    states = device.states
    for app in "ab":
        journal.write(states, journal.new(app, uri(app, 1), uri(app, 2), hold=journal.FETCHED), step=journal.FETCHED)
    assert rollout.waiting(Parts(device.config)) == ["a", "b"]
    # What was fetched is damaged, or dockerd is away: nothing is touched, and it is said of the app.
    assert isinstance(device.install(None, rollout.resume, hold="")["a"], NotFoundError)
    assert device.apps() == {"a": 1, "b": 1} and device.record().rollout.step == record.FETCHING
    monkeypatch.setattr(rollout.advance, "check_locks", lambda work: None)
    assert device.install(None, rollout.resume) == {} and device.apps() == {"a": 1, "b": 1}
    device.sick.add(uri("b", 2))
    device.install(None, rollout.resume, hold="")
    assert device.apps() == {"a": 1, "b": 1} and device.record().rollout is None


def test_a_target_that_was_given_up_while_it_was_fetched_is_not_installed(device, monkeypatch):
    first = device.target(1, a=1)
    device.install(first)
    before = device.record()

    def update(parts, ref, hold="", **options):
        if hold:
            # While bytes come the lock is free.
            record.write(parts, before)
            return {}
        return device.update(parts, ref, **options)

    monkeypatch.setattr(rollout.process, "update", update)
    ended = device.install(device.target(2, a=2, b=2))
    assert "another command gave Target device-2 up" in str(ended[""])
    assert device.apps() == {"a": 1} and device.record() == before


@pytest.mark.parametrize("sick", [(), ("b",)], ids=["good", "bad"])
def test_how_it_ended_is_told_whenever_the_power_goes(device, monkeypatch, sick):
    device.config = device.config._replace(server="https://factory.example.com")
    device.install(device.target(1, a=1, b=1))
    for number in range(2, 20):
        device.sick = {uri(app, number) for app in sick}
        told = {each["id"] for each in reports.waiting(device.states.root)}
        with monkeypatch.context() as patch:
            cut_writes(patch, rollout, number - 1)
            try:
                device.install(device.target(number, a=number % 10, b=number % 10))
                ended = True
            except Cut:
                ended = False
        device.install(device.target(number, a=number % 10, b=number % 10))
        said = [each["event"]["success"] for each in reports.waiting(device.states.root)
                if each["id"] not in told and each["eventType"]["id"] == reports.INSTALLATION_COMPLETED]
        assert said and set(said) == {not sick}, number
        if ended:
            return
    raise AssertionError("it does not come to its end")


def test_a_preloaded_target_is_gone_back_to_and_its_apps_go_with_it(device):
    apps = {"a": uri("a", 1), "b": uri("b", 1)}
    device.config.factory_file.write_text(json.dumps({"apps": apps, "target": {"name": "device-1", "version": 1}}))
    for app, each in apps.items():
        device.states.put(app, AppState(each, {}, False, ""))
    device.install(device.target(2, a=2))
    assert device.apps() == {"a": 2} and device.record().previous.name == "device-1"
    device.install(None, rollout.roll_back)
    assert device.apps() == {"a": 1, "b": 1} and device.record().current.name == "device-1"


_OK = {"name": "device-1", "version": 1, "tag": "main", "apps": {"a": uri("a", 1)}}
_WAY = {"target": _OK, "source": {"a": ""}, "step": record.SWITCHING, "removed": ["b"]}


@pytest.mark.parametrize("change", [
    {"current": {}}, {"current": {**_OK, "version": "1"}}, {"current": {**_OK, "apps": ["a"]}},
    {"current": {**_OK, "apps": {"../a": uri("a", 1)}}}, {"current": {**_OK, "apps": {"a": "hub.example.com/f/a:1"}}},
    {"current": {**_OK, "apps": {"a": 5}}}, {"declined": 5}, {"declined": [{}]}, {"declined": None},
    {"rollout": {**_WAY, "step": "done"}}, {"rollout": {**_WAY, "source": {"a": 5}}},
    {"rollout": {**_WAY, "source": []}},
    {"rollout": {**_WAY, "removed": [5]}}, {"rollout": {**_WAY, "removed": ["../../etc"]}},
    {"rollout": {**_WAY, "started": "x"}}, {"rollout": {**_WAY, "identifier": 5}},
    {"rollout": {**_WAY, "reason": None}},
], ids=range(17))
def test_a_record_that_makes_no_sense_is_damage_and_no_traceback(device, change):
    value = {"current": _OK, "previous": None, "rollout": _WAY, "declined": ["device-2"]}
    path = device.states.root / record.RECORD
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(value))
    assert record.find(device.states).value.rollout.removed == ("b",)
    path.write_text(json.dumps({**value, **change}))
    assert record.find(device.states).lost
