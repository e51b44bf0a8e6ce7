# SPDX-License-Identifier: MIT
"""Switches that are cut off: the next run ends in the wanted version, with one container for each replica."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from composeapps.engine.labels import FINGERPRINT, label
from composeapps.switching import definition
from support.device import service, shell

pytestmark = pytest.mark.root

HAND_OVER = {"composeapps.update.strategy": "hand-over", "composeapps.update.handover-timeout": "1000"}
# An agent of its own: what a killed one leaves is not tidied up by Python.
_AGENT = """
import json, sys
from pathlib import Path
from composeapps.installed import install
from composeapps.cli.config import Config
from composeapps.engine.client import Engine
from composeapps.oci.reference import parse_pinned
from composeapps.records.state import StateDirectory
from composeapps.store.store import Store
from composeapps.switching import changes, switch

value = json.loads(sys.argv[1])
paths = {key: Path(value[key]) for key in ("store", "compose_root", "state_dir")}
config = Config(**paths, docker_host=value["host"], compose_command=tuple(value["compose"]))
store, engine = Store(config.store), Engine(config.docker_host)
old, new = (install.load_from_store(store, parse_pinned(uri)) for uri in value["versions"])
switch.apply(old, new, install.load_images(new, store, engine, certain=True), changes.between(old, new, store),
             StateDirectory(config.state_dir), engine, config, store, notify=lambda text: print(text, flush=True))
"""


def _agent(device, old, new):
    """Start an agent that switches; return the process, which leads a group of its own."""
    config = device.config
    value = {"store": str(config.store), "compose_root": str(config.compose_root), "state_dir": str(config.state_dir),
             "host": config.docker_host, "compose": config.compose_command, "versions": [str(old.ref), str(new.ref)]}
    return subprocess.Popen([sys.executable, "-c", _AGENT, json.dumps(value)], stdout=subprocess.PIPE, text=True,
                            start_new_session=True)


def _kill(agent, whole):
    """Kill the agent, with ``whole`` its compose too; return when they are gone."""
    if whole:
        os.killpg(agent.pid, signal.SIGKILL)
    else:
        agent.kill()
    agent.communicate()


def _ends_as(device, app, replicas):
    """Assert that all containers are of a version, run, are as many as they should be and have no odd names."""
    wanted = definition.from_store(app, device.store, device.config)
    found = device.containers()
    assert {name: len(each) for name, each in found.items()} == replicas
    for name, each in found.items():
        for container in each:
            assert label(container, FINGERPRINT) == wanted.fingerprint(wanted.services[name])
            assert container["State"]["Running"] and container["Name"].startswith(f"/{device.name}-{name}-")


def _services(version):
    return {
        "a": service(environment={"V": version}), "b": service(), "h": service(environment={"V": version},
                                                                              labels=HAND_OVER),
        "n": service(environment={"V": version}, depends_on=["a"], deploy={"replicas": 2}),
    }


REPLICAS = {"a": 1, "b": 1, "h": 1, "n": 2}


@pytest.mark.parametrize("whole", (True, False))
def test_killed_at_random_moments_forwards_and_back(device, whole):
    versions = [device.version(_services(version), {"x": version}) for version in ("1", "2")]
    device.apply(None, versions[0])
    untouched = device.runs()["b"]
    seed = random.randrange(1000)
    moments = random.Random(seed)
    for turn in range(2):
        old, new = versions[turn % 2], versions[1 - turn % 2]
        agent = _agent(device, old, new)
        # From the first word on, which it says when Python is up; a whole switch takes about three seconds.
        agent.stdout.readline()
        after = moments.uniform(0, 3)
        time.sleep(after)
        _kill(agent, whole)
        # Shown when the test fails.
        print(f"seed {seed}, turn {turn}: killed after {after:.3f} s, leaving",
              [(each["Name"], each["State"]["Status"]) for found in device.containers().values() for each in found])
        device.apply(old, new, **({} if moments.random() < 0.5 else {"hand_over": False}))
        _ends_as(device, new, REPLICAS)
        assert device.runs()["b"] == untouched
        assert (device.directory / "x").read_text() == "21"[turn % 2]


def test_a_compose_that_outlives_its_agent_is_ended(device):
    def app(version):
        return device.version({
            "db": service(environment={"V": version}, healthcheck={
                "test": ["CMD", "/bin/busybox", "false"], "interval": "1h"}),
            "web": service(environment={"V": version}, depends_on={"db": {"condition": "service_healthy"}})})

    first, second = device.version({"db": service(), "web": service()}), app("1")
    device.apply(None, first)
    agent = _agent(device, first, second)
    # compose waits for a health that never comes, for all that its agent is gone.
    for line in agent.stdout:
        if "bringing up" in line:
            break
    lock = device.config.state_dir / "compose" / f"{device.name}.lock"
    _until(lambda: "V=1" in ((device.containers().get("db") or [{}])[0].get("Config", {}).get("Env") or ()))
    _kill(agent, whole=False)
    orphan = int(lock.read_text())
    os.kill(orphan, 0)
    last = device.version({"db": service(user="0"), "web": service(user="0")})
    device.apply(second, last)
    _until(lambda: _ended(orphan))
    _ends_as(device, last, {"db": 1, "web": 1})


@pytest.mark.parametrize("state", ("both", "stopped", "removed"))
def test_what_compose_leaves_when_it_is_killed_while_it_replaces(device, state):
    """Every state between its steps: created under a temporary name, old stopped, old removed."""
    old = device.version({"a": service(environment={"V": "1"}, volumes=["/kept"])})
    new = device.version({"a": service(environment={"V": "2"}, volumes=["/kept"])})
    device.apply(None, old)
    first = device.only("a")
    device.apply(old, new)
    second, name = device.only("a"), f"{device.name}-a-1"
    # From the end backwards: a container like the new one, under the name that it has until the last step.
    device.engine.stop(second["Id"])
    device.engine.rename(second["Id"], f"{first['Id'][:12]}_{name}")
    if state in ("both", "stopped"):
        config = {**first["Config"], "HostConfig": first["HostConfig"]}
        again = device.create(name, config)
        device.engine.rename(second["Id"], f"{again[:12]}_{name}")
        if state == "both":
            device.engine._json("POST", f"/containers/{again}/start")
    device.apply(old, new)
    _ends_as(device, new, {"a": 1})
    assert device.only("a")["Name"] == f"/{name}"


@pytest.mark.parametrize("back, started", ((True, True), (False, True), (False, False)))
def test_a_hand_over_that_was_cut_off_goes_on_or_back(device, back, started):
    labels = {**HAND_OVER, "composeapps.update.handover-timeout": "60000"}
    says_so = "/bin/busybox mkdir -p /tmp/balena; /bin/busybox touch /tmp/balena/handover-complete"
    old = device.version({"h": service(shell("true"), labels=labels)})
    # The new one says that it is ready when it finds this file.
    script = f"while ! /bin/busybox test -f /go/go; do /bin/busybox sleep 0.1; done; {says_so}"
    new = device.version({"h": service(shell(script), labels=labels, volumes=["go:/go"])}, volumes={"go": {}})
    device.apply(None, old)
    before = device.runs()["h"]
    agent = _agent(device, old, new)
    _until(lambda: len(device.runs()["h"]) == 2)
    _kill(agent, whole=True)
    (newer,) = [each for each in device.containers()["h"] if each["Id"] != before[0][0]]
    if back:
        device.apply(new, old, hand_over=False)
        assert device.runs()["h"] == before and len(device.containers()["h"]) == 1
    else:
        subprocess.run([device.docker, "--host", device.config.docker_host, "exec", newer["Id"], "/bin/busybox",
                        "touch", "/go/go"], check=True)
        if not started:
            device.engine.stop(newer["Id"])
        device.apply(old, new)
        _ends_as(device, new, {"h": 1})
        assert (device.only("h")["Id"] == newer["Id"]) == started


def _ended(process):
    """Tell whether a process has ended; its new parent may not have taken notice of that yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def _until(condition):
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
