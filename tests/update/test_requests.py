# SPDX-License-Identifier: MIT
"""How often dockerd is asked: as often for many apps and services as for one, and docker compose only where needed."""

import json
import threading

import pytest

from composeapps.app.tree import StoreSource, load_app
from composeapps.engine import client
from composeapps.oci.reference import parse_pinned
from composeapps.switching import runtime
from support.apps import make_app
from support.counting import CountingSocket
from support.engine import busybox_image
from support.images import make_image, sha256, tar
from support.updating import HASH, WELL, service, shell

pytestmark = pytest.mark.root

# So many requests a command may make at which nothing is to be done.
LOOK = 3


@pytest.fixture(scope="module")
def counted(dockerd):
    with CountingSocket(dockerd.directory / "counted.sock", dockerd.socket) as socket:
        yield socket


@pytest.fixture
def device(home, counted):
    """A device without apps, whose dockerd is asked through the socket that counts."""
    home.configure(docker_host=counted.host)
    yield home
    home.remove_containers()
    for name in home.states.names():
        home.states.remove(name)


@pytest.fixture
def count(run, counted, monkeypatch):
    """Run a command as a process of its own would; return how many requests it made."""
    def command(*words):
        monkeypatch.setattr(client, "_paths", {})
        counted.clear()
        status, _out, err = run(*words)
        assert status == 0, (words, err)
        return len(counted.requests)

    return command


def put(device, name, services):
    """Put an app into the device's store; return its pinned reference."""
    image = busybox_image(make_image, tar, {"content": "base"})
    for digest, blob in {**image.blobs, image.digest: image.content}.items():
        device.store.add_blob(digest, [blob])
    definitions = {}
    for key, description in services.items():
        definition = {name: value for name, value in description.items() if name != "content"}
        definition["labels"] = {HASH: sha256(json.dumps([name, definition]).encode()).removeprefix("sha256:")}
        definitions[key] = {"image": f"hub.demo.test/f/base@{image.digest}", **definition}
    made = make_app(json.dumps({"services": definitions}, indent=1), {"note": name})
    for data in (made.manifest, b"{}", made.bundle, made.bundle_index, made.layers_meta):
        device.store.add_blob(sha256(data), [data])
    app = load_app(StoreSource(device.store), parse_pinned(f"hub.demo.test/f/{name}@{made.digest}"))
    device.store.add_app(app)
    return str(app.ref)


def without_compose(device, counted):
    """Let docker compose fail whenever it is asked for something."""
    device.configure(docker_host=counted.host, compose_command=["/bin/false"])


@pytest.mark.parametrize("apps, services", [(1, 1), (5, 1), (1, 10)])
def test_what_is_as_it_should_be_is_looked_at_once(device, count, name, apps, services):
    uris = [put(device, f"{name}x{number}", {f"s{each}": service() for each in range(services)})
            for number in range(apps)]
    (device.root / "factory.json").write_text(json.dumps({"apps": {parse_pinned(uri).app_name: uri for uri in uris}}))
    count("run", *uris)
    started = [device.started(parse_pinned(uri).app_name) for uri in uris]
    assert count("run", *uris) == count("run", "--factory", "--installed") == LOOK
    assert count("ps") == count("status") == LOOK - 1 and count("check") == 1
    assert count("prune") == LOOK and count("prune", "--dry-run") <= LOOK
    assert [device.started(parse_pinned(uri).app_name) for uri in uris] == started


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
    # One for the images; the list does not come from dockerd here.
    assert count("run", name) == 1 + 2 * 4
    monkeypatch.undo()
    assert all(each[0]["State"]["Running"] for each in device.containers(name).values())


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
