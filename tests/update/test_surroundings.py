# SPDX-License-Identifier: MIT
"""What the device and other commands do to an update: none of it counts against a version."""

import subprocess

import pytest

from composeapps.engine import faults
from composeapps.errors import EngineError
from composeapps.records import journal, rejection, sealed
from composeapps.switching import switch
from composeapps.update import retreat
from support.faults import FaultyProxy
from support.updating import service, shell

pytestmark = pytest.mark.root


def once(monkeypatch, place, name, error):
    """Have a function fail the first time."""
    function, failures = getattr(place, name), [error]

    def failing(*args, **kwargs):
        if failures:
            raise failures.pop()
        return function(*args, **kwargs)

    monkeypatch.setattr(place, name, failing)


@pytest.mark.parametrize("words", ["write /var/lib/docker/x: no space left on device",
                                   "dial tcp: lookup hub.example.com: no such host"])
def test_what_the_device_lacks_leads_back_and_counts_for_nothing(device, run, pair, monkeypatch, words):
    once(monkeypatch, switch, "apply", EngineError(f"app x: docker compose up failed: {words}"))
    status, _, err = run("update", pair.other)
    assert status == 14 and words in err
    assert device.problems(pair.name, pair.installed) == []
    assert pair.other not in rejection.failures(device.states)
    # Nor when the history is all that is left to tell.
    for path in (device.states.root / rejection.RECORD, sealed.copy_of(device.states.root, rejection.RECORD)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    assert pair.other not in rejection.failures(device.states)
    assert run("update", pair.other)[0] == 0


def test_a_dockerd_that_restarts_meanwhile_counts_for_nothing(device, run, pair, monkeypatch):
    device.configure(max_failures=2)
    runs = iter(range(100))
    with monkeypatch.context() as patch:
        # Each look finds another one.
        patch.setattr(faults, "daemon", lambda _engine: next(runs))
        once(patch, switch, "apply", EngineError("app x: docker compose up failed: exit status 1"))
        status, _, err = run("update", pair.other)
        assert status == 16 and "dockerd went down meanwhile" in err
        assert journal.read(device.states, pair.name).step == journal.SWITCHING
        once(patch, switch, "apply", EngineError("app x: docker compose up failed: exit status 1"))
        assert run("update")[0] == 16
        # It is not tried for ever, but it is not the version's fault.
        assert run("update")[0] == 14
    assert device.problems(pair.name, pair.installed) == []
    assert pair.other not in rejection.failures(device.states)


def test_going_back_is_tried_again_until_dockerd_lets_it(device, run, pair, monkeypatch):
    monkeypatch.setattr(retreat, "PAUSES", (0,) * 5)
    broken = pair.version(service("8", shell("exit 1")))
    apply, left = switch.apply, [3]

    def busy(old, new, *args, **kwargs):
        if not kwargs.get("hand_over", True) and left[0]:
            left[0] -= 1
            raise EngineError("container is in use")
        return apply(old, new, *args, **kwargs)

    monkeypatch.setattr(switch, "apply", busy)
    status, _, err = run("update", broken, "--soak", "1")
    assert status == 14 and err.count("it is tried again in 0 s") == 3
    assert device.problems(pair.name, pair.installed) == []


def test_an_update_gives_up_when_another_command_changed_the_app_during_its_download(device, run, pair, registry):
    third = pair.version(service("third"))
    assert run("pull", pair.other)[0] == 0
    with FaultyProxy(registry.url, hold_after=1, only="/blobs/") as proxy:
        endpoints = {"COMPOSEAPPS_ENDPOINTS": f"{registry.host}={proxy.url}"}
        with device.process("update", third, more=endpoints, stderr=subprocess.PIPE) as update:
            try:
                assert proxy.held.wait(60)
                # Another download has to wait; what needs none does not.
                status, _, err = run("update", third)
                assert status == 9 and f"process {update.pid}" in err or "another process" in err
                assert run("update", pair.other)[0] == 0
            finally:
                proxy.release.set()
            _, err = update.communicate(timeout=120)
    assert update.returncode == 1 and "another command changed it" in err
    assert device.problems(pair.name, pair.other) == []
    assert run("update", third)[0] == 0
    assert device.problems(pair.name, third) == []


def test_an_update_to_the_installed_version_mends_what_the_store_has_lost(device, run, pair):
    for path in (device.store.blobs).iterdir():
        path.unlink()
    status, _, err = run("update", pair.installed)
    assert status == 0 and "is installed already" in err, err
    assert run("check", pair.installed, "--store-only")[0] == 0
