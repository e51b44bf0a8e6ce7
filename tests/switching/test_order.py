# SPDX-License-Identifier: MIT
"""What depends_on asks for holds whatever changes and however it is replaced, and work that is done is done once."""

import time

import pytest

from composeapps.errors import NotRunningError
from composeapps.installed import install
from composeapps.switching import runtime
from composeapps.switching.definition import STRATEGY_LABELS
from support.device import service, shell

pytestmark = pytest.mark.root

READY = {"test": ["CMD", "/bin/busybox", "test", "-f", "/ok"], "interval": "200ms", "retries": 100}
ENDS_WELL = ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do /bin/busybox sleep 0.1; done"]
HANDED_OVER = {STRATEGY_LABELS[0]: "hand-over", "composeapps.update.handover-timeout": "500"}


def _migration(version, script="/bin/busybox sleep 0.7", **more):
    return service(["/bin/busybox", "sh", "-c", script], environment={"V": version}, **more)


def _ended(device, name):
    return device.only(name)["State"]["FinishedAt"]


@pytest.mark.parametrize("more", ({}, {"labels": HANDED_OVER}))
def test_a_migration_ends_before_the_new_web_starts(device, more):
    def version(number, migration):
        return device.version({
            "web": service(environment={"V": number}, **more,
                           depends_on={"migrate": {"condition": "service_completed_successfully"}}),
            "migrate": _migration(migration)})

    old = version("1", "1")
    device.apply(None, old)
    before = device.only("web")["Id"]
    both = version("2", "2")
    device.apply(old, both)
    assert device.only("web")["Id"] != before
    assert device.only("migrate")["State"]["ExitCode"] == 0
    assert device.only("web")["State"]["StartedAt"] > _ended(device, "migrate")
    # Of a version in which the web alone changes, the migration is done.
    done = _ended(device, "migrate")
    device.apply(both, version("3", "2"))
    assert _ended(device, "migrate") == done and "V=3" in device.only("web")["Config"]["Env"]


@pytest.mark.parametrize("labels", [HANDED_OVER, {}])
def test_a_migration_that_fails_keeps_the_new_web_from_starting(device, labels):
    def version(number, script):
        return device.version({
            "web": service(environment={"V": number}, labels=labels,
                           depends_on={"migrate": {"condition": "service_completed_successfully"}}),
            "migrate": _migration(number, script)})

    old = version("1", "true")
    device.apply(None, old)
    before = device.runs()["web"]
    new = version("2", "echo no such table; exit 3")
    with pytest.raises(NotRunningError, match="which web must wait for, ended with status 3; its last words: no"):
        device.apply(old, new)
    if labels:
        assert device.runs()["web"] == before
    device.apply(new, old, hand_over=False)
    assert device.runs()["web"] == before if labels else len(device.runs()["web"]) == 1


def test_one_that_changed_waits_for_the_health_of_one_that_did_not(device):
    def version(number):
        return device.version({
            "db": service(shell("/bin/busybox sleep 1; /bin/busybox touch /ok"), healthcheck=READY),
            "web": service(environment={"V": number}, depends_on={"db": {"condition": "service_healthy"}})})

    old = version("1")
    device.apply(None, old)
    device.engine._json("POST", f"/containers/{device.only('db')['Id']}/restart?t=0")
    device.apply(old, version("2"))
    web, db = device.only("web"), device.only("db")
    assert db["State"]["Health"]["Status"] == "healthy" and web["State"]["StartedAt"] > db["State"]["StartedAt"]


def test_what_is_not_required_is_gone_on_without(device):
    def version(number):
        return device.version({
            "web": service(environment={"V": number}, labels=HANDED_OVER, depends_on={
                "extra": {"condition": "service_completed_successfully", "required": False}}),
            "extra": _migration(number, "exit 1")})

    old = version("1")
    device.apply(None, old)
    device.apply(old, version("2"))
    assert "V=2" in device.only("web")["Config"]["Env"]
    assert any("going on without it" in note for note in device.notes)


def test_who_is_restarted_with_another_is_so_after_a_hand_over_too(device):
    def version(number):
        return device.version({
            "base": service(environment={"V": number}, labels=HANDED_OVER),
            "with": service(depends_on={"base": {"condition": "service_started", "restart": True}}),
            "without": service(depends_on=["base"])})

    old = version("1")
    device.apply(None, old)
    before = device.runs()
    device.apply(old, version("2"))
    after = device.runs()
    assert before["without"] == after["without"] and before["with"] != after["with"]
    assert device.only("with")["State"]["StartedAt"] > device.only("base")["State"]["StartedAt"]


def _run(device, app):
    runtime.start(app, device.states.get(device.name), device.states, device.config)


def test_work_that_is_done_is_done_once_whatever_is_started_again(device):
    app = device.version({
        "once": service(["/bin/busybox", "true"]), "down": service(ENDS_WELL, stop_signal="SIGTERM"),
        "web": service(depends_on={"migrate": {"condition": "service_completed_successfully"}}),
        "migrate": service(["/bin/busybox", "true"], restart="on-failure"),
        "failed": service(["/bin/busybox", "false"])})
    device.apply(None, app)
    deadline = time.monotonic() + 30
    while any(device.only(name)["State"]["Status"] != "exited" for name in ("once", "failed")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = {name: _ended(device, name) for name in ("once", "migrate")}
    failed = device.only("failed")["State"]["StartedAt"]
    _run(device, app)
    assert {name: _ended(device, name) for name in done} == done
    assert device.only("failed")["State"]["StartedAt"] != failed
    runtime.stop(app, device.states.get(device.name), device.states, device.config)
    assert device.only("down")["State"]["ExitCode"] == 0, "its end looks like that of one that did its work"
    _run(device, app)
    assert {name: _ended(device, name) for name in done} == done
    assert device.only("down")["State"]["Running"] and device.only("web")["State"]["Running"]


def test_profiles_that_the_env_file_turns_on_and_off(device):
    services = {"a": service(), "full": service(profiles=["full"]), "debug": service(profiles=["debug"])}
    lean = device.version(services, {".env": "X=1\n"})
    full = device.version(services, {".env": "COMPOSE_PROFILES=full\n"})
    device.apply(None, lean)
    before = device.runs()
    assert set(before) == {"a"}
    device.apply(lean, full)
    assert set(device.runs()) == {"a", "full"} and device.runs()["a"] == before["a"]
    states = {each.name: each for each in runtime.status(full, device.engine, device.config)}
    assert all(each.good for each in states.values()) and not states["debug"].expected
    device.engine.remove("containers", device.only("full")["Id"], force="1")
    (lost,) = (each for each in runtime.status(full, device.engine, device.config) if not each.good)
    assert lost.name == "full" and lost.state == "missing"
    _run(device, full)
    device.apply(full, lean)
    assert device.runs() == before and set(device.containers()) == {"a"}


def test_replicas_that_a_variable_tells(device):
    services = {"many": service(deploy={"replicas": "${COUNT:-1}"})}
    one, three = device.version(services), device.version(services, {".env": "COUNT=3\n"})
    device.apply(None, one)
    device.apply(one, three)
    assert len(device.runs()["many"]) == 3
    device.engine.remove("containers", device.containers()["many"][0]["Id"], force="1")
    (status,) = runtime.status(three, device.engine, device.config)
    assert not status.good and "2 of 3 containers" in status.status
    _run(device, three)
    assert len(device.runs()["many"]) == 3
    device.apply(three, one)
    assert len(device.containers()["many"]) == 1


def test_the_owners_env_file_counts_where_the_version_has_none(device):
    services = {"many": service(scale="${COUNT:-1}"), "full": service(profiles=["full"])}
    app = device.version(services)
    device.apply(None, app)
    assert set(device.runs()) == {"many"}
    (device.directory / ".env").write_text("COUNT=2\nCOMPOSE_PROFILES=full\n")
    install.place_bundle(app, device.store, device.config, device.engine)
    _run(device, app)
    assert len(device.runs()["many"]) == 2 and set(device.runs()) == {"many", "full"}
    assert all(each.good for each in runtime.status(app, device.engine, device.config))
