# SPDX-License-Identifier: MIT
"""What a boot costs at which nothing is to be done: CPU, beside ``docker compose up -d`` of one running app.

The device runs so many apps of one service, or one app of so many services, in a dockerd of its own. Each shape is
measured by itself, and docker compose beside each in turns: what dockerd lists grows with what runs.
"""

import hashlib
import json
import os
import resource
import statistics
import subprocess

from bench.agentrun import Agent
from bench.disk import disk
from bench.figures import BenchError, Figure
from bench.loads import MOUNTPOINT
from composeapps.app.tree import StoreSource, load_app
from composeapps.oci.digests import sha256
from composeapps.oci.reference import parse_pinned
from composeapps.store.store import Store
from moby.root import engine_root
from support.apps import make_app
from support.engine import DockerDaemon, busybox_image
from support.images import make_image, tar

HOST = "bench.example.com"
# (apps, services of each), and the most CPU of a boot that does nothing: a ratio to docker compose, or seconds.
SHAPES = ((1, 1, 2.0, None), (10, 1, None, None), (50, 1, None, 0.25), (1, 10, None, None), (1, 100, None, None))
BOOT = ("run", "--factory", "--installed")


def boots(run):
    """Measure each shape: docker compose, the boot, and for the larger ones ``status`` and ``ps``."""
    root = engine_root(run.progress)
    for apps, services, ratio, seconds in SHAPES:
        title = f"{apps} apps" if apps > 1 else f"1 app, {services} services" if services > 1 else "1 app"
        with disk(run.scratch, MOUNTPOINT) as place, DockerDaemon(root, place.root) as daemon:
            yield from _measure(run, daemon, title, (apps, services), (ratio, seconds))


def _measure(run, daemon, title, shape, bars):
    agent = Agent(daemon.directory, daemon, "")
    with run.progress.step(f"starting {title}"):
        names = fill(agent, *shape)
        # Twice: the second one finds all as it should be, and has the byte code.
        for _ in range(2):
            agent.run(*BOOT)
    variants = {
        "compose": lambda: _compose(daemon, names[0]), "boot": lambda: agent.seconds(*BOOT),
        **({word: lambda word=word: agent.seconds(word) for word in ("status", "ps")} if max(shape) > 1 else {}),
    }
    taken = run.in_turns(**variants)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    ratio, seconds = bars
    for name in ("boot", "status", "ps"):
        if name in taken:
            samples = {each: [round(value, 3) for value in taken[each]] for each in (name, "compose")}
            yield Figure(f"{name}, {title}: CPU", middle[name], "s", "docker compose up -d of one app",
                         middle["compose"], ratio if name == "boot" else None, samples)
    if seconds is not None:
        yield Figure(f"boot, {title}: CPU at most", middle["boot"], "s", bar=seconds)


def fill(agent, apps, services):
    """Put apps into the store of an Agent and into its factory set; return their names."""
    store, image = Store(agent.store), busybox_image(make_image, tar)
    for digest, blob in {**image.blobs, image.digest: image.content}.items():
        store.add_blob(digest, [blob])
    uris = {}
    for number in range(apps):
        name, definitions = f"app{number}", {}
        for each in range(services):
            definition = {"image": f"{HOST}/bench/busybox@{image.digest}", "network_mode": "none",
                          "command": ["/bin/busybox", "sleep", "360000"], "stop_signal": "SIGKILL"}
            mark = hashlib.sha256(json.dumps([name, each, definition]).encode()).hexdigest()
            definitions[f"service{each}"] = {**definition, "labels": {"io.compose-spec.config-hash": mark}}
        made = make_app(json.dumps({"services": definitions}), {"note": name}, [image])
        for data in (made.manifest, b"{}", made.bundle, made.bundle_index, made.layers_meta):
            store.add_blob(sha256(data), [data])
        app = load_app(StoreSource(store), parse_pinned(f"{HOST}/bench/{name}@{made.digest}"))
        store.add_app(app)
        uris[name] = str(app.ref)
    agent.configure(factory_file=str(agent.directory / "factory.json"), factory_store=str(agent.directory / "factory"))
    (agent.directory / "factory.json").write_text(json.dumps({"apps": uris}))
    return list(uris)


def _compose(daemon, name):
    """Return the seconds of CPU of ``docker compose up -d`` of an app that runs."""
    directory = daemon.directory / "compose" / name
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # As the agent had it made: with the override that tells by what names dockerd knows the images.
    override = daemon.directory / "state" / "overrides" / f"{name}.json"
    done = subprocess.run([*daemon.compose_command, "--project-name", name, "--project-directory", str(directory),
                           "--file", str(directory / "docker-compose.yml"), "--file", str(override), "up", "--detach"],
                          env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_HOST": daemon.host},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or "Running" not in done.stderr:
        raise BenchError(f"docker compose up: {done.stderr.strip()[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
