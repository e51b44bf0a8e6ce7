# SPDX-License-Identifier: MIT
"""A Target is the device's: all its apps in one version, or all in the one before, whatever happens in between."""

import shutil

import pytest

from composeapps.delivery import record, rollout
from composeapps.delivery.selection import Target
from composeapps.errors import ComposeAppsError, NotFoundError, RejectedError, RolledBackError, UpdateLockedError
from composeapps.records import journal, rejection
from composeapps.update.parts import Parts
from support.cuts import Cut, cut_writes
from support.updating import SICK, service, shell

pytestmark = pytest.mark.root


class Fleet:
    """A device that takes Targets of two apps, "a" and "b"."""

    def __init__(self, device, publisher, name):
        self.device, self._publisher, self.name, self.told = device, publisher, name, []
        self.uris = {}

    def app(self, letter):
        return f"{self.name}{letter}"

    def version(self, letter, content, **keys):
        """Publish a version of an app; return its pinned reference."""
        key = letter, content
        if key not in self.uris:
            self.uris[key] = self._publisher.version(self.app(letter), {"web": service(content, **keys)})
        return self.uris[key]

    def target(self, number, **uris):
        """Return a Target of these versions of apps."""
        return Target(f"device-{number}", number, {self.app(letter): uri for letter, uri in uris.items()},
                      ("board",), ("main",))

    def parts(self):
        """Return the Parts of a new process."""
        return Parts(self.device.load_config()._replace(tags=("main",)), self.told.append)

    def go(self, action, *words, **options):
        """Do it as a command does; return {app's letter: what came of it}, the last for each app."""
        parts = self.parts()
        try:
            with parts.locked():
                return {app.removeprefix(self.name): ended for app, ended in action(parts, *words, **options)}
        finally:
            parts.close()

    def install(self, target, **options):
        return self.go(rollout.install, target, **options)

    def record(self):
        return rollout.read(self.device.states)

    def problems(self, target):
        """Return what keeps the device from being at a Target, exactly."""
        return [problem for app, uri in target.apps.items() for problem in self.device.problems(app, uri)]


@pytest.fixture
def fleet(device, publisher, name):
    device.configure(health_timeout=3)
    for place in ("delivery", "copies/delivery"):
        shutil.rmtree(device.states.root / place, ignore_errors=True)
    yield Fleet(device, publisher, name)
    device.remove_containers()
    for each in device.states.names():
        device.states.remove(each)
    for each in journal.pending(device.states):
        journal.remove(device.states, each.app)


@pytest.fixture
def first(fleet):
    """A Target that is installed."""
    target = fleet.target(1, a=fleet.version("a", "1"), b=fleet.version("b", "1"))
    assert {ended["result"] for ended in fleet.install(target).values()} == {"updated"}
    return target


def test_all_apps_of_a_target_come_together(fleet, first):
    assert fleet.problems(first) == []
    assert rollout.installed(fleet.device.states) == ("device-1", 1, "main")
    second = fleet.target(2, a=fleet.version("a", "2"), b=fleet.version("b", "1"))
    before = fleet.device.started(fleet.app("b"))
    assert {app: ended["result"] for app, ended in fleet.install(second).items()} == {"a": "updated", "b": "unchanged"}
    assert fleet.problems(second) == [] and fleet.device.started(fleet.app("b")) == before
    kept = fleet.record()
    assert (kept.current.name, kept.previous.name, kept.rollout) == ("device-2", "device-1", None)
    # The same again touches nothing.
    assert {ended["result"] for ended in fleet.install(second).values()} == {"unchanged"}
    assert fleet.record() == kept


def test_one_app_that_fails_takes_all_of_them_back(fleet, first):
    bad = fleet.target(2, a=fleet.version("a", "2"), b=fleet.version("b", "sick", healthcheck=SICK))
    ended = fleet.install(bad)
    assert isinstance(ended["b"], RolledBackError)
    assert fleet.problems(first) == []
    kept = fleet.record()
    assert (kept.current.name, kept.rollout) == ("device-1", None)
    assert "Target device-1 runs again" in fleet.told[-1]
    # Only the version that failed counts as one that did.
    assert set(rejection.failures(fleet.device.states)) == {bad.apps[fleet.app("b")]}


def test_a_first_target_that_fails_leaves_nothing(fleet):
    bad = fleet.target(1, a=fleet.version("a", "1"), b=fleet.version("b", "sick", healthcheck=SICK))
    assert isinstance(fleet.install(bad)["b"], RolledBackError)
    assert fleet.device.states.names() == []
    assert fleet.device.containers(fleet.app("a")) == fleet.device.containers(fleet.app("b")) == {}
    assert fleet.record() == record.Record()


def test_apps_that_a_target_has_no_more_go_and_others_stay(fleet, first):
    own = fleet.version("own", "1")
    assert fleet.device.installed(fleet.app("own")) is None
    from support.updating import run_here

    assert run_here(fleet.device, "update", own) == 0
    second = fleet.target(2, a=fleet.version("a", "2"), c=fleet.version("c", "1"))
    fleet.install(second)
    assert fleet.problems(second) == []
    assert fleet.device.installed(fleet.app("b")) is None and fleet.device.containers(fleet.app("b")) == {}
    # What the user installed is no Target's.
    assert fleet.device.problems(fleet.app("own"), own) == []
    assert fleet.record().rollout is None


def test_what_cannot_be_fetched_touches_nothing_and_a_newer_target_takes_its_place(fleet, first, no_registry,
                                                                                   monkeypatch):
    second = fleet.target(2, a=fleet.version("a", "2"), b=fleet.version("b", "2"))
    third = fleet.target(3, a=fleet.version("a", "2"), b=fleet.version("b", "3"))
    before = fleet.device.started(fleet.app("a"))
    with monkeypatch.context():
        no_registry()
        ended = fleet.install(second)
        assert all(isinstance(each, ComposeAppsError) for each in ended.values())
    assert fleet.record().rollout.step == rollout.FETCHING
    assert fleet.problems(first) == [] and fleet.device.started(fleet.app("a")) == before
    # It waits for the next check-in, not for a boot.
    assert fleet.go(rollout.resume) == {}
    monkeypatch.setenv("COMPOSEAPPS_ENDPOINTS", fleet.device.endpoint)
    fleet.install(third)
    assert fleet.problems(third) == [] and fleet.record().current.name == "device-3"


def test_a_lock_of_one_app_keeps_all_of_them_from_being_touched(fleet):
    hold = shell("mkdir -p /tmp/composeapps; : > /tmp/composeapps/updates.lock; exec sleep 100000")
    held = {"test": ["CMD", "/bin/busybox", "test", "-e", "/tmp/composeapps/updates.lock"], "interval": "1s"}
    first = fleet.target(1, a=fleet.version("a", "1"), b=fleet.version("b", "held", command=hold, healthcheck=held))
    fleet.install(first)
    before = fleet.device.started(fleet.app("a"))
    second = fleet.target(2, a=fleet.version("a", "2"), b=fleet.version("b", "2"))
    ended = fleet.install(second)
    assert [type(each) for each in ended.values()] == [UpdateLockedError]
    assert fleet.problems(first) == [] and fleet.device.started(fleet.app("a")) == before
    assert fleet.record().rollout.step == rollout.FETCHING
    fleet.install(second, force=True)
    assert fleet.problems(second) == []


def test_a_rejected_version_is_not_tried_and_its_target_is_refused(fleet, first):
    bad = fleet.target(2, a=fleet.version("a", "2"), b=fleet.version("b", "2"))
    rejection.reject(fleet.device.states, bad.apps[fleet.app("b")], "it was bad", 3)
    try:
        assert "device-2 is not installed" in rollout.refused(fleet.parts(), bad)
        assert isinstance(fleet.install(bad)["b"], RejectedError)
        assert fleet.problems(first) == [] and fleet.record().rollout is None
        assert journal.pending(fleet.device.states) == []
    finally:
        rejection.forget(fleet.device.states, bad.apps[fleet.app("b")])


def test_a_user_goes_back_to_the_target_before_and_the_one_he_left_does_not_come_by_itself(fleet, first):
    second = fleet.target(2, a=fleet.version("a", "2"), b=fleet.version("b", "2"))
    fleet.install(second)
    assert rollout.refused(fleet.parts(), second) == ""
    fleet.go(rollout.roll_back)
    assert fleet.problems(first) == [] and fleet.record().current.name == "device-1"
    assert "somebody went back from Target device-2" in rollout.refused(fleet.parts(), second)
    assert rollout.refused(fleet.parts(), fleet.target(3, a=fleet.version("a", "2"))) == ""
    fleet.install(second)
    assert rollout.refused(fleet.parts(), second) == ""
    assert fleet.problems(second) == []


def test_without_a_target_before_there_is_nothing_to_go_back_to(fleet, first):
    with pytest.raises(NotFoundError, match="no Target to go back to"):
        fleet.go(rollout.roll_back)


def test_the_host_in_a_reference_is_no_part_of_a_version(fleet, first):
    other = {app.removeprefix(fleet.name): f"elsewhere.example.com/f/{app}@{uri.rpartition('@')[2]}"
             for app, uri in first.apps.items()}
    before = fleet.device.started(fleet.app("a"))
    again = fleet.target(2, **other)
    assert rollout.is_in_place(fleet.parts(), again)
    assert {ended["result"] for ended in fleet.install(again).values()} == {"unchanged"}
    assert fleet.device.started(fleet.app("a")) == before and fleet.record().current.name == "device-2"


@pytest.mark.parametrize("sick", [False, True], ids=["good", "bad"])
def test_a_cut_at_each_step_ends_in_one_version_of_all_apps(fleet, first, monkeypatch, sick):
    number, second = 1, None
    while True:
        number += 1
        keys = {"healthcheck": SICK} if sick else {}
        before = fleet.target(1, **{letter: fleet.device.installed(fleet.app(letter)) for letter in "ab"})
        second = fleet.target(number, a=fleet.version("a", f"{number}"), b=fleet.version("b", f"{number}", **keys))
        with monkeypatch.context() as patch:
            cut_writes(patch, rollout, number - 1)
            try:
                fleet.install(second)
                ended = True
            except Cut:
                ended = False
        # The next boot has no check-in, and finishes what was begun.
        fleet.go(rollout.resume)
        left = fleet.record()
        if left.rollout is not None:
            assert left.rollout.step == rollout.FETCHING
        name = left.current.name
        at = second if name == second.name else before
        assert fleet.problems(at) == [], number
        assert not (sick and at is second)
        if ended:
            assert (at is second) != sick
            return
        assert number < 20
