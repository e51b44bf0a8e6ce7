# SPDX-License-Identifier: MIT
"""How often dockerd is asked: as often for many apps and services as for one, and docker compose only where needed."""

import json
import threading

import pytest

from composeapps.engine import client
from composeapps.engine.look import Look
from composeapps.errors import EngineError
from composeapps.installed.install import load_from_store
from composeapps.oci.reference import parse_pinned
from composeapps.switching import runtime
from support import fleet
from support.updating import WELL, service, shell

pytestmark = pytest.mark.root

# So many requests a command may make at which nothing is to be done, and for each thing that is changed, or odd.
LOOK, EACH = 3, 2
# An update asks where dockerd's data is as well, for the room, which networks there are, and how it went (twice);
# for each container that it replaces, three more times for its locks.
UPDATE, REPLACED = LOOK + 4, 4


@pytest.fixture
def device(counted_device):
    """A device without apps, whose dockerd is asked through the socket that counts."""
    return counted_device


def put(device, name, services, **top):
    """Put an app into the device's store; return its pinned reference."""
    return fleet.put(device.store, name, services, **top)


def without_compose(device, counted):
    """Let docker compose fail whenever it is asked for something."""
    device.configure(docker_host=counted.host, compose_command=["/bin/false"])


def _services(kind, count, **keys):
    """Return the descriptions of services: "plain", or each with a volume of its own on a network of the app's."""
    found = {f"s{number}": service(**keys, **({"volumes": [f"v{number}:/v"]} if kind == "networked" else {}))
             for number in range(count)}
    for description in found.values() if kind == "networked" else ():
        del description["network_mode"]
    return found


def _top(kind, count):
    return {"volumes": {f"v{number}": {} for number in range(count)}} if kind == "networked" else {}


@pytest.mark.parametrize("kind, apps, services", [
    ("plain", 1, 1), ("plain", 8, 1), ("plain", 1, 12), ("networked", 1, 1), ("networked", 3, 1), ("networked", 1, 4)])
def test_what_is_as_it_should_be_is_looked_at_once(device, count, counted, name, kind, apps, services):
    uris = [put(device, f"{name}x{number}", _services(kind, services), **_top(kind, services))
            for number in range(apps)]
    (device.root / "factory.json").write_text(json.dumps({"apps": {parse_pinned(uri).app_name: uri for uri in uris}}))
    # Of what is made for the first time only the images are asked about: here it is one, whatever needs it.
    assert count("run", *uris) <= LOOK + 2 + EACH + apps
    started = [device.started(parse_pinned(uri).app_name) for uri in uris]
    assert count("run", *uris) == LOOK
    assert count("run", "--factory", "--installed") == LOOK
    assert count("ps") == count("status") == LOOK - 1 and count("check") == 1
    assert count("prune") == LOOK and count("prune", "--dry-run") <= LOOK
    assert [device.started(parse_pinned(uri).app_name) for uri in uris] == started
    # One container is replaced, as few requests whatever else there is.
    changed = _services(kind, services)
    changed["s0"]["environment"] = {"VERSION": "2"}
    version = put(device, f"{name}x0", changed, **_top(kind, services))
    assert count("update", version) <= UPDATE + EACH + REPLACED, counted.own
    # Each of them is stopped, and started, by one request, and looked at by another one where it does not run; that it
    # takes long makes no difference: to these commands each second is half a minute.
    assert count("stop", "--all", hurry=30) <= LOOK + apps * services
    assert count("ps") <= LOOK + apps * services
    assert count("run", *[f"{name}x{number}" for number in range(apps)], hurry=30) <= LOOK + EACH * apps * services
    assert all(each[0]["State"]["Running"] for number in range(apps)
               for each in device.containers(f"{name}x{number}").values())


def test_what_does_not_need_another_answer_is_asked_side_by_side(device, count, counted, name):
    uri = put(device, name, _services("plain", 5))
    count("run", uri)
    version = put(device, name, {**_services("plain", 5), "s0": service(environment={"VERSION": "2"})})
    # Long enough for all that is begun at a time to have begun before the first answer.
    counted.own_delay = 0.5
    try:
        assert count("run", uri) == LOOK and counted.depth == 1
        assert count("update", version) > counted.depth
        # Where the data is and the images; the containers; the one to be replaced; its locks; the outcome.
        assert counted.depth <= 6
    finally:
        counted.own_delay = 0.0


def test_images_that_are_nobodys_app_are_not_asked_about(device, count, name):
    uri = put(device, name, {"web": service()})
    count("run", uri)
    container, mine = device.containers(name)["web"][0]["Id"], [f"v{number}" for number in range(12)]
    for tag in mine:
        device.engine._json("POST", f"/commit?container={container}&repo={name}-mine&tag={tag}&changes=LABEL%20t={tag}")
    try:
        version = put(device, name, {"web": service(environment={"VERSION": "2"})})
        assert count("update", version) <= UPDATE + EACH + REPLACED
        assert count("run", name) == LOOK and count("prune") == LOOK
    finally:
        for tag in mine:
            device.engine.remove("images", f"{name}-mine:{tag}")


def test_a_first_run_asks_for_each_image_and_for_nothing_that_it_made(device, count, name):
    apps = 4
    uris = [put(device, f"{name}x{number}", {"web": service(f"{name} {number}")}) for number in range(apps)]
    # Loading is the first of the two, and one more where dockerd does not take directories.
    assert count("run", *uris) <= LOOK + 2 + EACH * apps + apps


@pytest.mark.parametrize("signal", ["stop", "kill"])
def test_what_was_just_ended_is_seen_though_the_list_lags(device, count, name, monkeypatch, signal):
    uri = put(device, name, {f"s{each}": service() for each in range(3)})
    count("run", uri)
    late, ended = device.engine.containers(), device.containers(name)["s1"][0]["Id"]
    device.engine._json("POST", f"/containers/{ended}/{signal}")
    monkeypatch.setattr(client.Engine, "containers", lambda _self, _label=None: late)
    count("run", name)
    monkeypatch.undo()
    assert all(each[0]["State"]["Running"] for each in device.containers(name).values())


def test_what_only_has_to_be_started_is_started_in_order_without_compose(device, count, counted, name):
    ready = {"test": ["CMD", "/bin/busybox", "test", "-f", "/ok"], "interval": "100ms", "retries": 100}
    uri = put(device, name, {
        "web": service(depends_on={"db": {"condition": "service_healthy"}, "job": {"condition": "service_started"}}),
        "db": service(command=list(shell("/bin/busybox rm -f /ok; /bin/busybox sleep 0.5; : > /ok; "
                                         "exec /bin/busybox sleep 1000")), healthcheck=ready),
        "job": service(command=["/bin/busybox", "true"]), "other": service()})
    count("run", uri)
    before = device.containers(name)
    done = before["job"][0]["State"]["StartedAt"]
    for key in ("web", "db", "other"):
        device.engine.stop(before[key][0]["Id"])
    without_compose(device, counted)
    count("run", name)
    after = device.containers(name)
    assert {key: found[0]["Id"] for key, found in after.items()} == {key: each[0]["Id"] for key, each in before.items()}
    assert all(after[key][0]["State"]["Running"] for key in ("web", "db", "other"))
    assert after["job"][0]["State"]["StartedAt"] == done
    first_well = next(each["End"] for each in after["db"][0]["State"]["Health"]["Log"] if each["ExitCode"] == 0)
    assert after["web"][0]["State"]["StartedAt"] > first_well[:19]
    # Each one that does not run, or did not just now, is inspected.
    device.engine.stop(after["other"][0]["Id"])
    assert count("run", name) <= LOOK + 2 * 4


def test_what_was_stopped_runs_again_though_the_list_still_shows_it_running(device, count, counted, name, monkeypatch):
    uri = put(device, name, {f"s{each}": service(restart=("no", "always")[each % 2]) for each in range(4)})
    count("run", uri)
    late = device.engine.containers()
    count("stop", name)
    without_compose(device, counted)
    monkeypatch.setattr(client.Engine, "containers", lambda _self, _label=None: late)
    # The list of containers does not come from dockerd here.
    assert count("run", name) == LOOK - 1 + EACH * 4
    monkeypatch.undo()
    assert all(each[0]["State"]["Running"] for each in device.containers(name).values())


@pytest.mark.parametrize("meanwhile", ["gone", "running", "made anew"])
def test_what_was_to_be_started_may_have_changed_until_its_turn(device, count, name, meanwhile):
    uri = put(device, name, {"web": service(), "db": service()})
    count("run", uri)
    before = device.containers(name)
    for found in before.values():
        device.engine.stop(found[0]["Id"])
    app, state = load_from_store(device.store, parse_pinned(uri)), device.states.get(name)
    begun = runtime.begin(app, state, device.states, device.load_config(), Look(device.engine))
    if meanwhile == "running":
        device.engine.start(before["web"][0]["Id"])
    else:
        device.engine.remove("containers", before["web"][0]["Id"])
    if meanwhile == "made anew":
        count("run", name)
    started = device.started(name)
    begun()
    after = device.containers(name)
    assert all(len(found) == 1 and found[0]["State"]["Running"] for found in after.values()) and len(after) == 2
    assert meanwhile == "gone" or device.started(name)["web"] == started["web"]


@pytest.mark.parametrize("change", ["missing", "hook"])
def test_what_has_to_be_made_or_prepared_is_left_to_compose(device, count, counted, run, name, change):
    hook = {"post_start": [{"command": ["/bin/busybox", "true"]}]} if change == "hook" else {}
    uri = put(device, name, {"web": service(healthcheck=WELL, **hook), "db": service()})
    count("run", uri)
    container = device.containers(name)["web"][0]
    device.engine.stop(container["Id"])
    if change != "hook":
        device.engine.remove("containers", container["Id"])
    without_compose(device, counted)
    assert run("run", name)[0] != 0
    device.configure(docker_host=counted.host)
    count("run", name)
    assert device.containers(name)["web"][0]["State"]["Running"]


def test_a_link_that_a_container_made_is_not_mounted(device, count, run, name):
    uri = put(device, name, {"a": service(volumes=["./data:/data", "./data/sub:/sub"])})
    (device.compose_root / name / "data/sub").mkdir(parents=True)
    count("run", uri)
    device.engine.stop(device.containers(name)["a"][0]["Id"])
    (device.compose_root / name / "data/sub").rmdir()
    (device.compose_root / name / "data/sub").symlink_to("/etc")
    assert run("run", name)[0] == 4
    assert not device.containers(name)["a"][0]["State"]["Running"]


def test_services_are_stopped_in_the_reverse_order_and_get_their_time(device, count, counted, name):
    script = "trap 'exit 0' TERM; while :; do /bin/busybox sleep 1000 & wait $!; done"
    slow = "trap '/bin/busybox sleep 0.3; exit 0' USR1; while :; do /bin/busybox sleep 1000 & wait $!; done"
    uri = put(device, name, {
        "db": service(command=list(shell(script)), stop_signal="SIGTERM"),
        "web": service(command=list(shell(slow)), stop_signal="SIGUSR1", stop_grace_period="1m", depends_on=["db"]),
        "deaf": service(command=list(shell("trap '' TERM; exec /bin/busybox sleep 1000")), stop_signal="SIGTERM",
                        stop_grace_period="1s"),
        "behind": service(network_mode="service:web")})
    count("run", uri)
    without_compose(device, counted)
    assert count("stop", name) <= LOOK + 4
    states = {key: found[0]["State"] for key, found in device.containers(name).items()}
    assert {key: state["ExitCode"] for key, state in states.items()} == {"db": 0, "web": 0, "deaf": 137, "behind": 137}
    ends = {key: state["FinishedAt"] for key, state in states.items()}
    assert ends["behind"] < ends["web"] < ends["db"] and device.states.get(name).stopped
    # What is stopped stays so, and is not stopped again.
    assert count("stop", name) <= LOOK + 4
    assert not any(request.startswith("POST") for request in counted.own)


@pytest.mark.parametrize("why", ["hook", "cut off"])
def test_what_compose_does_at_a_stop_is_left_to_it(device, count, counted, run, name, why):
    hook = {"pre_stop": [{"command": ["/bin/busybox", "true"]}]} if why == "hook" else {}
    uri = put(device, name, {"web": service()})
    count("run", uri)
    if why == "hook":
        # The docker compose of these tests is too old for it, so that no version with it comes up.
        state = device.states.get(name)
        app = load_from_store(device.store, parse_pinned(put(device, name, {"web": service(**hook)})))
        with pytest.raises(EngineError, match="docker compose"):
            runtime.stop(app, state, device.states,
                         device.load_config()._replace(compose_command=("/bin/false",)), device.engine)
        return
    lock = device.states.root / "compose" / f"{name}.lock"
    lock.write_text("1\n")
    without_compose(device, counted)
    assert run("stop", name)[0] == 6
    device.configure(docker_host=counted.host)
    count("stop", name)
    assert not device.containers(name)["web"][0]["State"]["Running"]


def test_many_services_of_an_app_are_started_beside_each_other(device, count, counted, name, monkeypatch):
    uri = put(device, name, {f"s{number}": service(depends_on=["s0", "s1"] if number > 1 else [])
                             for number in range(6)})
    count("run", uri)
    count("stop", name)
    without_compose(device, counted)
    first, second, start = threading.Barrier(2), threading.Barrier(4), client.Engine.start
    services = {found[0]["Id"]: key for key, found in device.containers(name).items()}
    begun = []

    def meet(engine, container):
        begun.append(services[container])
        (first if services[container] in ("s0", "s1") else second).wait(timeout=60)
        start(engine, container)

    monkeypatch.setattr(client.Engine, "start", meet)
    count("run", name)
    assert set(begun[:2]) == {"s0", "s1"} and len(begun) == 6
    assert all(each[0]["State"]["Running"] for each in device.containers(name).values())


def test_apps_are_stopped_beside_each_other(device, count, name, monkeypatch):
    for number in range(3):
        count("run", put(device, f"{name}x{number}", {"s": service()}))
    both, stop = threading.Barrier(3), runtime.stop

    def meet(*arguments):
        both.wait(timeout=60)
        stop(*arguments)

    monkeypatch.setattr(runtime, "stop", meet)
    count("stop", "--all")
    assert not any(each[0]["State"]["Running"] for number in range(3)
                   for each in device.containers(f"{name}x{number}").values())
