# SPDX-License-Identifier: MIT
"""Update locks and hand-over, with a real dockerd."""

import subprocess
import threading
import time

import pytest

from composeapps.errors import NotRunningError, UpdateLockedError
from composeapps.switching import locks, switch
from support.device import service, shell

pytestmark = pytest.mark.root

HAND_OVER = {"composeapps.update.strategy": "hand-over", "composeapps.update.handover-timeout": "60000"}


def _hold(device, daemon, name, path=locks.PATHS[0]):
    directory, _, file = path.rpartition("/")
    device.sh(name, f"/bin/busybox mkdir -p {directory}; echo 'the nightly backup' > {path}", daemon)


def _two(device, **more):
    """Return two versions of an app, the first of which runs; "a" differs, "b" does not."""
    old = device.version({"a": service(**more), "b": service()})
    new = device.version({"a": service(environment={"V": "2"}, **more), "b": service()})
    device.apply(None, old)
    return old, new


def _check(device, old, new, **options):
    switch.check_locks(old, new, device.between(old, new), device.states, device.engine, device.config, **options)


@pytest.mark.parametrize("path, more", (
    (locks.PATHS[1], {"volumes": ["kept:/tmp/balena"]}), (locks.PATHS[2], {}),
    (locks.PATHS[0], {"tmpfs": ["/tmp"], "read_only": True}),
))
def test_a_lock_forbids_to_touch_and_says_whose_it_is(device, daemon, path, more):
    old = device.version({"a": service(**more), "b": service()}, volumes={"kept": {}})
    new = device.version({"a": service(user="0", **more), "b": service()}, volumes={"kept": {}})
    device.apply(None, old)
    _hold(device, daemon, "b")
    _check(device, old, new)
    before = device.runs()
    _hold(device, daemon, "a", path)
    wanted = (f"service a holds its update lock since 20..-..-.. ..:..:.. UTC: {path} in container "
              f"{before['a'][0][0][:12]}, which says 'the nightly backup', forbids to touch it: wait.*or.*--force")
    with pytest.raises(UpdateLockedError, match=wanted):
        _check(device, old, new)
    with pytest.raises(UpdateLockedError, match=wanted):
        device.apply(old, new)
    assert device.runs() == before
    device.apply(old, new, force=True)
    assert device.runs()["a"] != before["a"] and any("overridden" in note for note in device.notes)


def test_a_lock_that_a_crash_left_counts_for_nothing(device, daemon):
    old, new = _two(device)
    _hold(device, daemon, "a")
    container = device.only("a")["Id"]
    device.engine._json("POST", f"/containers/{container}/restart")
    _check(device, old, new)
    _hold(device, daemon, "a")
    with pytest.raises(UpdateLockedError):
        _check(device, old, new)
    device.engine.stop(container)
    _check(device, old, new)


def test_before_a_download_locks_are_obeyed(device, daemon):
    labels = {"io.balena.update.strategy": "kill-then-download"}
    old = device.version({"a": {**service(labels=labels), "image": "one"}})
    new = device.version({"a": {**service(labels=labels), "image": "two"}})
    device.apply(None, old)
    _hold(device, daemon, "a")
    before, between = device.runs(), device.between(old, new)
    with pytest.raises(UpdateLockedError):
        switch.before_download(old, new, between, device.states, device.engine, device.config)
    assert device.runs() == before


def _handing_over(version, script="true", **more):
    more = {"labels": HAND_OVER, **more}
    return service(shell(script), environment={"V": version}, **more)


SAYS_SO = "/bin/busybox mkdir -p /tmp/balena; /bin/busybox touch /tmp/balena/handover-complete"


@pytest.mark.parametrize("script, more", (
    (SAYS_SO, {}),
    ("/bin/busybox touch /ok", {"healthcheck": {"test": ["CMD", "/bin/busybox", "test", "-f", "/ok"],
                                                "interval": "200ms"}}),
    ("true", {"labels": {**HAND_OVER, "composeapps.update.handover-timeout": "300"}}),
    (SAYS_SO, {"deploy": {"replicas": 2}}),
))
def test_the_old_one_goes_when_the_new_one_is_ready(device, script, more):
    old = device.version({"a": _handing_over("1", **more), "b": service()})
    new = device.version({"a": _handing_over("2", script, **more), "b": service()})
    device.apply(None, old)
    before, first = device.runs(), device.containers()["a"]
    device.apply(old, new)
    after = device.containers()["a"]
    assert len(after) == len(first) and all("V=2" in each["Config"]["Env"] for each in after)
    assert device.runs()["b"] == before["b"]
    # The new ones were there before the old ones went, so they have other names; and they keep them.
    assert not {each["Name"] for each in first} & {each["Name"] for each in after}
    runs = device.runs()
    device.apply(old, new)
    assert device.runs() == runs


@pytest.mark.parametrize("script, more, reason", (
    ("exit 3", {}, "the new container ended with status 3"),
    ("true", {"healthcheck": {"test": ["CMD", "/bin/busybox", "false"], "interval": "100ms", "retries": 1}},
     "the new container is unhealthy"),
    ("true", {"labels": {**HAND_OVER, "composeapps.update.handover-timeout": "500"},
              "healthcheck": {"test": ["CMD", "/bin/busybox", "false"], "interval": "100ms", "retries": 1000}},
     "did not become healthy in time"),
))
def test_a_hand_over_that_fails_leaves_the_old_one_as_it_was(device, script, more, reason):
    old = device.version({"a": _handing_over("1", **{**more, "healthcheck": {"disable": True}}), "b": service()})
    new = device.version({"a": _handing_over("2", script, **more), "b": service()})
    device.apply(None, old)
    before = device.runs()
    with pytest.raises(NotRunningError, match=f"app {device.name}: service a: hand-over failed: .*{reason}"):
        device.apply(old, new)
    assert device.runs() == before and len(device.containers()["a"]) == 1


def test_a_hand_over_waits_for_the_lock_of_the_old_one(device, daemon):
    old, new = device.version({"a": _handing_over("1")}), device.version({"a": _handing_over("2", SAYS_SO)})
    device.apply(None, old)
    first = device.only("a")

    def release():
        _until(lambda: any("ready to hand over, but service a holds" in note for note in device.notes))
        subprocess.run([daemon.base / "usr/bin/docker", "--host", daemon.host, "exec", first["Id"], "/bin/busybox",
                        "rm", locks.PATHS[0]], check=True)

    helper = threading.Thread(target=release)
    _hold(device, daemon, "a")
    helper.start()
    # A lock from the start would put the whole switch off.
    checked, locks.check = locks.check, lambda *args, **kwargs: None
    try:
        device.apply(old, new)
    finally:
        locks.check = checked
        helper.join()
    assert "V=2" in device.only("a")["Config"]["Env"]


def test_a_lock_that_is_not_released_ends_the_hand_over(device, daemon):
    labels = {**HAND_OVER, "composeapps.update.handover-timeout": "500"}
    old = device.version({"a": _handing_over("1", labels=labels)})
    new = device.version({"a": _handing_over("2", SAYS_SO, labels=labels)})
    device.apply(None, old)
    before = device.runs()
    _hold(device, daemon, "a")
    checked, locks.check = locks.check, lambda *args, **kwargs: None
    try:
        with pytest.raises(UpdateLockedError, match="hand-over failed: service a holds its update lock"):
            device.apply(old, new)
    finally:
        locks.check = checked
    assert device.runs() == before and len(device.containers()["a"]) == 1


def test_a_file_that_an_earlier_container_left_hands_nothing_over(device, daemon):
    more = {"volumes": ["kept:/tmp/composeapps"], "labels": {**HAND_OVER, "composeapps.update.handover-timeout": "500"},
            "healthcheck": {"test": ["CMD", "/bin/busybox", "false"], "interval": "1h"}}
    volumes = {"volumes": {"kept": {}}}
    old = device.version({"a": _handing_over("1", **more)}, **volumes)
    new = device.version({"a": _handing_over("2", **more)}, **volumes)
    device.apply(None, old)
    device.sh("a", "echo > /tmp/composeapps/handover-complete", daemon)
    before = device.runs()
    with pytest.raises(NotRunningError, match="did not become healthy in time"):
        device.apply(old, new)
    assert device.runs() == before


def test_the_way_back_waits_for_nobody(device):
    old = device.version({"a": _handing_over("1")})
    new = device.version({"a": _handing_over("2", SAYS_SO)})
    device.apply(None, old)
    device.apply(old, new)
    # In an hour the old version would have handed over; it says nothing.
    device.apply(new, old, hand_over=False)
    assert "V=1" in device.only("a")["Config"]["Env"]


def _until(condition):
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
