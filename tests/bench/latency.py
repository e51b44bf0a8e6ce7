# SPDX-License-Identifier: MIT
"""What is asked of dockerd: how often, and how long it takes where dockerd takes its time to answer."""

import contextlib
import itertools
import statistics
import tempfile
from pathlib import Path
from types import SimpleNamespace

from bench.agentrun import Agent
from bench.figures import Figure, timed
from composeapps.store.store import Store
from moby import build
from moby.root import engine_root
from support import fleet
from support.counting import CountingSocket
from support.engine import DockerDaemon
from support.updating import service

# Seconds that each request takes.
DELAYS = (0, 0.05)
SERVICES = 5
# Of (apps, services of each).
SIZES = ((1, 1), (10, 1), (50, 1), (1, 10), (1, 100))
# So many requests a command may make at which nothing is to be done, and for each thing that is changed.
LOOK, EACH = 3, 2


def latency(run):
    """Time a boot at which nothing is to be done, and an update of one of five services, with a slow dockerd too."""
    with _device(run, "latency") as (agent, counted):
        versions = itertools.cycle([
            fleet.put(Store(agent.store), "web", _services(SERVICES, number)) for number in ("1", "2")])
        agent.run("update", next(versions))
        depths = {}

        def measured(what, delay, *words):
            counted.delay = delay
            counted.clear()
            seconds = timed(lambda: agent.run(*words))
            depths[what, delay] = counted.depth
            return seconds

        results = run.in_turns(**{f"{what}, {delay * 1000:.0f} ms": call for delay in DELAYS for what, call in (
            ("boot", lambda delay=delay: measured("boot", delay, "run", "--factory", "--installed")),
            ("update", lambda delay=delay: measured("update", delay, "update", next(versions))))})
        counted.delay = 0
        agent.run("stop", "web")
    bars = {"boot": 0.4, "update": 2.5}
    for delay in DELAYS:
        for what, words in (("boot", "a boot, nothing to do"), ("update", "an update of one of five services")):
            taken = [round(each, 3) for each in results[f"{what}, {delay * 1000:.0f} ms"]]
            yield Figure(f"{words}, {delay * 1000:.0f} ms a request: wall", statistics.median(taken), "s",
                         bar=bars[what] if delay else None, samples={what: taken})
    for what in bars:
        yield Figure(f"{what}: own requests that follow each other", depths[what, DELAYS[-1]], "")


def requests(run):
    """Count the requests of each command, and time its CPU, for many apps and for many services."""
    for apps, count in SIZES:
        with _device(run, f"requests-{apps}-{count}") as (agent, counted):
            yield from _requests(run, agent, counted, apps, count)


def _requests(run, agent, counted, apps, count):
    store = Store(agent.store)
    names = [f"app{number}" for number in range(apps)]
    uris = [fleet.put(store, name, _services(count)) for name in names]
    size = f"{apps} apps" if apps > 1 else f"an app of {count} services"
    total = apps * count

    def measured(what, bar, *words):
        with run.progress.step(f"{size}: {what}"):
            counted.clear()
            taken = agent.seconds(*words)
        yield Figure(f"{size}, {what}: own requests", len(counted.own), "", bar=bar)
        yield Figure(f"{size}, {what}: CPU, docker compose's too", taken, "s")

    yield from measured("first run", None, "run", *uris)
    yield from measured("run, nothing to do", LOOK, "run", "--factory", "--installed")
    for word in ("status", "ps", "prune", "check"):
        yield from measured(word, LOOK, word)
    changed = fleet.put(store, names[0], _services(count, "2"))
    yield from measured("update of one service", None, "update", changed)
    yield from measured("stop", LOOK + EACH * total, "stop", "--all")
    yield from measured("run of what was stopped", LOOK + EACH * total, "run", *names)
    agent.run("stop", "--all")


def _services(count, version="1"):
    found = {f"s{number}": service() for number in range(count)}
    found["s0"]["environment"] = {"VERSION": version}
    return found


@contextlib.contextmanager
def _device(run, name):
    """Give (the Agent, the CountingSocket through which it asks its dockerd)."""
    # Where the daemon's root file system has a place for it.
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir="/tmp") as directory:
        place = Path(directory)
        daemon = DockerDaemon(engine_root(run.progress), place, dockerd=build.patched(run.progress) / "dockerd",
                              env={"DOCKER_LOAD_ROOTS": directory})
        with daemon, CountingSocket(place / "counted.sock", daemon.socket) as counted:
            yield Agent(place, SimpleNamespace(host=counted.host, compose_command=daemon.compose_command),
                        ""), counted
