# SPDX-License-Identifier: MIT
"""How long an update keeps the service down that it changes, beside stopping and starting its container."""

import itertools
import json
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from bench.figures import BenchError, compare
from composeapps.switching import runtime
from moby import build
from moby.root import engine_root
from support.device import Device, service
from support.engine import DockerDaemon

SERVICES = ("one", "two", "three", "four", "changed")
# It ends as soon as it is asked to, so that none of the time is its own.
ENDS_AT_ONCE = ["/bin/busybox", "sh", "-c",
                "trap 'exit 0' TERM; while :; do /bin/busybox sleep 3600 & wait $!; done"]


def update_downtime(run):
    """Compare an update of one of five services with `docker stop` and `docker start` of its container.

    Down is a service from the event that its container died to the one that a container of it was started.
    """
    # Where the daemon's root file system has a place for it.
    with tempfile.TemporaryDirectory(prefix="bench-downtime-", dir="/tmp") as directory:
        root = engine_root(run.progress)
        with DockerDaemon(root, Path(directory), dockerd=build.patched(run.progress) / "dockerd",
                          env={"DOCKER_LOAD_ROOTS": directory}) as daemon:
            device = Device(Path(directory) / "device", daemon.host, daemon.compose_command)
            yield from _measure(run, device, daemon)


def _measure(run, device, daemon):
    versions = itertools.cycle([_version(device, number) for number in ("1", "2")])
    state = {"old": None, "new": next(versions)}
    device.apply(None, state["new"])

    def update():
        state["old"], state["new"] = state["new"], next(versions)
        device.apply(state["old"], state["new"])

    def stop_and_start():
        docker = [daemon.base / "usr/bin/docker", "--host", daemon.host]
        for word in ("stop", "start"):
            subprocess.run([*docker, word, device.only("changed")["Id"]], check=True, stdout=subprocess.DEVNULL)

    others = {name: each for name, each in device.runs().items() if name != "changed"}
    results = run.in_turns(update=lambda: _downtime(device, update),
                           **{"docker stop, docker start": lambda: _downtime(device, stop_and_start)})
    if {name: each for name, each in device.runs().items() if name != "changed"} != others:
        raise BenchError("the update touched containers of services that it does not change")
    runtime.stop(state["new"], device.states.get(device.name), device.states, device.config)
    yield compare("one of five services: down", "s", results, "update", "docker stop, docker start", 1.3)


def _version(device, number):
    services = {name: service(ENDS_AT_ONCE, stop_signal="SIGTERM") for name in SERVICES}
    services["changed"]["environment"] = {"VERSION": number}
    return device.version(services)


def _downtime(device, action):
    begin = time.time()
    action()
    query = urlencode({"since": f"{begin:.9f}", "until": f"{time.time() + 0.001:.9f}",
                       "filters": json.dumps({"type": ["container"], "event": ["die", "start"]})})
    _status, data = device.engine._request("GET", f"/events?{query}")
    events = [(event["timeNano"] / 1e9, event["Action"], event["Actor"]["Attributes"])
              for event in map(json.loads, data.splitlines())]
    if sorted(action for _time, action, _labels in events) != ["die", "start"]:
        raise BenchError(f"one container was to end and one to start, and not: {events}")
    (died,), (started,) = ([at for at, what, _labels in events if what == wanted] for wanted in ("die", "start"))
    return started - died
