# SPDX-License-Identifier: MIT
"""Switching between versions with a real dockerd: only what differs is touched, and nothing is lost."""

import subprocess

import pytest

from composeapps.engine.labels import FINGERPRINT, label
from composeapps.errors import EngineError
from composeapps.installed import install
from composeapps.store.store import Store
from composeapps.switching import runtime, switch
from support.device import Device, service, shell

pytestmark = pytest.mark.root

# Ends when there is nothing to read for a moment.
READING = ["/bin/busybox", "sh", "-c", "while /bin/busybox cat /conf/x > /dev/null; do /bin/busybox sleep 0.02; done"]
READY = {"test": ["CMD", "/bin/busybox", "test", "-f", "/ok"], "interval": "200ms", "retries": 100}


def _started(device, name):
    return device.only(name)["State"]["StartedAt"]


def test_only_the_service_that_differs_is_replaced(device):
    services = {name: service() for name in ("a", "b", "c", "d", "e")}
    old = device.version(services)
    device.apply(None, old)
    before = device.runs()
    assert set(before) == {"a", "b", "c", "d", "e"}
    new = device.version({**services, "c": service(environment={"V": "2"})})
    device.apply(old, new)
    after = device.runs()
    assert {name for name in before if before[name] != after[name]} == {"c"} and len(after["c"]) == 1
    assert "V=2" in device.only("c")["Config"]["Env"]
    # Again, and by a later start of the device: nothing is left to be done.
    device.apply(old, new)
    runtime.start(new, device.states.get(device.name), device.states, device.config)
    assert device.runs() == after
    device.apply(new, old)
    back = device.runs()
    assert {name for name in before if before[name] != back[name]} == {"c"}
    assert not device.only("c")["Config"]["Env"]


def test_a_file_of_the_bundle_replaces_those_who_mount_it_and_nobody_else_loses_theirs(device, daemon):
    keep = service(READING, volumes=["./conf:/conf"])
    services = {"keeper": keep, "file": service(volumes=["./other/x:/x:ro"]), "none": service()}
    old = device.version(services, {"conf/x": "kept", "other/x": "1"})
    device.apply(None, old)
    before = device.runs()
    new = device.version(services, {"conf/x": "kept", "other/x": "2", "other/y": "new"})
    device.apply(old, new)
    after = device.runs()
    assert {name for name in before if before[name] != after[name]} == {"file"}
    assert device.sh("file", "cat /x", daemon) == "2"
    assert device.sh("keeper", "cat /conf/x", daemon) == "kept"
    # What the one that was left alone writes now is what the next one finds.
    device.sh("keeper", "echo more > /conf/z", daemon)
    assert (device.directory / "conf/z").read_text() == "more\n"


def test_who_is_not_touched_goes_on_seeing_its_files_and_the_users(device, daemon):
    services = {"reader": service(READING, volumes=["./conf:/conf:ro"]), "a": service(volumes=["./x:/x"])}
    old = device.version(services, {"conf/x": "kept", "conf/sub/y": "kept too", "x": "1"})
    device.apply(None, old)
    before = device.runs()["reader"]
    (device.directory / "conf/z").write_text("of the user")
    device.apply(old, device.version(services, {"conf/x": "kept", "conf/sub/y": "kept too", "x": "2"}))
    assert device.runs()["reader"] == before
    assert device.sh("reader", "cat /conf/x /conf/sub/y /conf/z", daemon) == "keptkept tooof the user"
    assert (device.directory / "conf/z").read_text() == "of the user"
    newest = device.version(services, {"conf/x": "kept", "conf/sub/y": "kept too", "x": "3"})
    device.apply(None, newest)
    assert device.sh("reader", "cat /conf/x", daemon) == "kept"
    device.engine._json("POST", f"/containers/{before[0][0]}/restart")
    runtime.start(newest, device.states.get(device.name), device.states, device.config)
    assert device.sh("reader", "cat /conf/x /conf/z", daemon) == "keptof the user"


def test_order_follows_depends_on_and_waits_for_health(device):
    def services(version):
        return {
            "web": service(environment={"V": version}, depends_on={"db": {"condition": "service_healthy"}}),
            "db": service(shell("/bin/busybox sleep 1; /bin/busybox touch /ok"), environment={"V": version},
                          healthcheck=READY),
        }

    old, new = device.version(services("1")), device.version(services("2"))
    device.apply(None, old)
    device.apply(old, new)
    db, web = device.only("db"), device.only("web")
    first = next(entry for entry in db["State"]["Health"]["Log"] if entry["ExitCode"] == 0)
    assert web["State"]["StartedAt"] > first["Start"][:19] and "V=2" in web["Config"]["Env"]
    assert _started(device, "web") > _started(device, "db")


@pytest.mark.parametrize("change", ({"labels": {"a": "2"}}, {"driver_opts": {"type": "tmpfs", "device": "tmpfs"}}))
def test_volumes_are_never_made_anew(device, daemon, change):
    def version(number, volume):
        return device.version({"db": service(volumes=["data:/data", "/scratch"], environment={"V": number})},
                              volumes={"data": volume})

    old = version("1", {"labels": {"a": "1"}})
    device.apply(None, old)
    device.sh("db", "echo precious > /data/x; echo nameless > /scratch/x", daemon)
    new = version("2", change)
    assert "it is kept as it is" in device.between(old, new).warnings[0]
    device.apply(old, new)
    assert "V=2" in device.only("db")["Config"]["Env"]
    assert device.sh("db", "cat /data/x /scratch/x", daemon) == "precious\nnameless\n"


def test_a_network_that_is_defined_otherwise_is_made_anew_for_those_on_it(device):
    def version(options):
        return device.version({"on": service(networks=["x"]), "too": service(networks=["x"]), "off": service()},
                              networks={"x": {"internal": True, **options}})

    old = version({"driver_opts": {"com.docker.network.driver.mtu": "1400"}})
    device.apply(None, old)
    before = device.runs()
    new = version({"driver_opts": {"com.docker.network.driver.mtu": "1300"}})
    device.apply(old, new)
    after = device.runs()
    assert before["off"] == after["off"] and all(before[name] != after[name] for name in ("on", "too"))
    (network,) = device.engine.networks(f"com.docker.compose.project={device.name}")
    assert network["Options"]["com.docker.network.driver.mtu"] == "1300"
    device.apply(old, new)
    assert device.runs() == after
    device.apply(new, device.version({"off": service()}))
    assert device.engine.networks(f"com.docker.compose.project={device.name}") == []


def test_services_come_and_go_and_others_stay(device):
    old = device.version({"stays": service(), "goes": service()})
    device.apply(None, old)
    before = device.runs()
    new = device.version({"stays": service(), "comes": service()})
    device.apply(old, new)
    after = device.runs()
    assert set(after) == {"stays", "comes"} == set(device.containers()) and after["stays"] == before["stays"]


def test_replicas_profiles_and_services_of_none(device):
    def services(version, count):
        return {"many": service(environment={"V": version}, deploy={"replicas": count}),
                "none": service(scale=0), "debug": service(profiles=["debug"])}

    old, new = device.version(services("1", 2)), device.version(services("2", 3))
    device.apply(None, old)
    device.apply(old, new)
    found = device.containers()
    assert set(found) == {"many"} and len(found["many"]) == 3
    assert all("V=2" in each["Config"]["Env"] for each in found["many"])
    device.apply(new, device.version(services("2", 1)))
    assert len(device.runs()["many"]) == 1


def test_who_shares_a_network_goes_with_its_owner(device, daemon):
    def services(version):
        return {"owner": service(environment={"V": version}), "other": service(),
                "guest": service(network_mode="service:owner")}

    old, new = device.version(services("1")), device.version(services("2"))
    device.apply(None, old)
    before = device.runs()
    device.apply(old, new)
    after = device.runs()
    assert before["other"] == after["other"] and before["guest"] != after["guest"]
    assert device.only("guest")["HostConfig"]["NetworkMode"] == f"container:{device.only('owner')['Id']}"


def test_what_did_its_work_is_not_run_again(device):
    once = service(["/bin/busybox", "true"], volumes=["log:/log"])
    old = device.version({"once": once, "a": service()}, volumes={"log": {}})
    device.apply(None, old)
    first = device.only("once")
    new = device.version({"once": once, "a": service(user="1")}, volumes={"log": {}})
    device.engine._json("POST", f"/containers/{first['Id']}/wait")
    started = _started(device, "once")
    device.apply(old, new)
    assert _started(device, "once") == started


def test_what_was_left_alone_but_does_not_run_is_started(device):
    old = device.version({"down": service(), "gone": service(), "a": service()})
    device.apply(None, old)
    device.engine.stop(device.only("down")["Id"])
    device.engine.remove("containers", device.only("gone")["Id"], force="1")
    down = device.only("down")["Id"]
    device.apply(old, device.version({"down": service(), "gone": service(), "a": service(user="1")}))
    assert set(device.runs()) == {"down", "gone", "a"} and device.only("down")["Id"] == down


def test_what_somebody_paused_goes_on(device, daemon):
    old = device.version({"web": service(), "db": service()})
    device.apply(None, old)
    before = {name: device.only(name)["Id"] for name in ("web", "db")}
    for version in (old, device.version({"web": service(), "db": service(user="1")})):
        for name in before:
            subprocess.run([device.docker, "--host", daemon.host, "pause", device.only(name)["Id"]], check=True)
        device.apply(old, version)
        assert all(device.only(name)["State"]["Status"] == "running" for name in before)
        assert device.only("web")["Id"] == before["web"]


def test_containers_that_another_agent_made_are_left_alone(device):
    """They have the pinned hash, and nothing of ours."""
    old = device.version({"a": service(), "b": service()})
    images = install.load_images(old, device.store, device.engine)
    install.place_bundle(old, device.store, device.config)
    plain = switch.Project(old, install.service_images(old, images), device.states, device.config, device.engine)
    plain.compose("up", "--detach", "--no-build")
    before = device.runs()
    assert not label(device.only("a"), FINGERPRINT)
    device.states.put(device.name, install.state_of(old, images, None))
    runtime.start(old, device.states.get(device.name), device.states, device.config)
    assert device.runs() == before
    device.apply(old, device.version({"a": service(), "b": service(user="1")}))
    assert device.runs()["a"] == before["a"] and device.runs()["b"] != before["b"]


def test_a_stopped_app_gets_its_files_and_stays_stopped(device):
    old = device.version({"a": service()}, {"x": "1"})
    device.apply(None, old)
    runtime.stop(old, device.states.get(device.name), device.states, device.config)
    new = device.version({"a": service(environment={"V": "2"})}, {"x": "2"})
    device.apply(old, new)
    assert (device.directory / "x").read_text() == "2" and device.runs() == {"a": []}
    runtime.start(new, device.states.get(device.name), device.states, device.config)
    assert "V=2" in device.only("a")["Config"]["Env"] and len(device.runs()["a"]) == 1


def test_an_app_of_the_same_last_name_is_another_app(device, daemon):
    """One app's containers are no orphans of the other's."""
    root = daemon.directory / f"shared-{device.name}"
    one, two = (Device(root, daemon.host, daemon.compose_command) for _ in range(2))
    one.name = two.name = "twin"
    nested = two.version({"b": service()}).ref._replace(path="f/nested/twin")
    assert nested.app_name == "nested/twin"
    version = two.version({"b": service()})._replace(ref=nested)
    two.name, two.directory = "nested/twin", root / "compose" / "nested" / "twin"
    one.directory = root / "compose" / "twin"
    try:
        one.apply(None, first := one.version({"a": service()}))
        two.apply(None, version)
        before = one.runs()
        runtime.start(version, two.states.get("nested/twin"), two.states, two.config)
        assert one.runs() == before and set(two.runs()) == {"b"}
        one.apply(first, one.version({"a": service(), "b": service()}))
        assert set(one.runs()) == {"a", "b"} and len(two.runs()["b"]) == 1
    finally:
        one.clear()
        two.clear()


@pytest.mark.parametrize("strategy", ("kill-then-download", "delete-then-download", "download-then-kill"))
def test_what_goes_before_the_download(device, strategy):
    labels = {"composeapps.update.strategy": strategy}
    old = device.version({"a": service(labels=labels), "b": service()})
    new = device.version({"a": {**service(labels=labels), "image": f"second-{strategy}"}, "b": service()})
    # An image of the service's own, so that nobody else keeps it.
    old = device.version({"a": {**service(labels=labels), "image": f"first-{strategy}"}, "b": service()})
    device.apply(None, old)
    before = device.runs()
    image = old.images[device.image(f"first-{strategy}")]
    stopped = switch.before_download(old, new, device.between(old, new), device.states, device.engine, device.config)
    assert stopped == (strategy != "download-then-kill")
    assert device.runs()["b"] == before["b"] and ("a" in device.containers()) == (strategy != "delete-then-download")
    assert (install.find_image(image, device.engine) is None) == (strategy == "delete-then-download")
    assert len(device.runs().get("a", [])) == (strategy == "download-then-kill")
    # The way back needs the store and nothing else.
    assert isinstance(device.store, Store)
    device.apply(new, old)
    assert len(device.runs()["a"]) == 1 and device.runs()["b"] == before["b"]
    device.apply(old, new)
    (variant,) = new.images[device.image(f"second-{strategy}")].variants
    assert device.only("a")["Image"] == variant.document.config.digest


def test_compose_says_what_is_wrong(device):
    old = device.version({"a": service(["/no/such/program"])})
    with pytest.raises(EngineError, match=f"app {device.name}: docker compose up failed: .*no/such/program"):
        device.apply(None, old)
