# SPDX-License-Identifier: MIT
"""Pulling an app and installing it: the bytes that reach the disk, beside other ways from a registry to dockerd."""

import json
from dataclasses import dataclass
from pathlib import Path

from bench.agentrun import Agent
from bench.disk import allocated, disk
from bench.figures import BenchError, Figure
from bench.hub import hub
from bench.loads import MB, MOUNTPOINT, engine_of
from composeapps import durable
from moby import root as roots
from support.engine import DockerDaemon
from support.unixconnection import UnixConnection


@dataclass(frozen=True)
class Installed:
    """Bytes that were ``written``, that the blobs have (``compressed``) and that the layers take (``extracted``)."""

    written: int
    compressed: int
    extracted: int


def install_bytes(run):
    """Compare what is written with what has to be: each blob once, as it came, and each layer's files."""
    with hub(run) as running:
        ours = _measure(run, running, "patched", _pull_and_install)
        least = (ours.compressed + ours.extracted) / MB
        yield Figure("pull and install: bytes written", ours.written / MB, "MB", "compressed + extracted", least, 1.02)
        for name, way in (("docker pull, keeping no blobs", _docker_pull),
                          ("skopeo to docker-daemon, keeping no blobs", _skopeo),
                          ("skopeo to oci, from there to docker-daemon", _skopeo_by_way_of_blobs)):
            other = _measure(run, running, "stock", way)
            yield Figure(f"{name}: bytes written", other.written / MB, "MB", "compressed + extracted", least)


def _measure(run, running, engine, way):
    """Have an empty dockerd on a disk of its own get the app's image, with eager writeback; return the Installed."""
    with run.progress.step(f"bytes written: {way.__name__.strip('_').replace('_', ' ')}"), \
            disk(run.scratch, MOUNTPOINT) as place:
        root, dockerd = engine_of(engine, run.progress)
        daemon = DockerDaemon(root, place.root, dockerd=dockerd, env={"DOCKER_LOAD_ROOTS": str(place.root / "store")})
        with daemon, place.eager_writeback():
            durable.sync_filesystem(place.root)
            before = place.written()
            compressed = way(run, running, daemon, root)
            durable.sync_filesystem(place.root)
            written = place.written() - before
            extracted = allocated((daemon.data_root / "overlay2").glob("*/diff"))
    if extracted < 100 * MB:
        raise BenchError(f"dockerd has {extracted} bytes of layers: it did not get the image")
    return Installed(written, compressed, extracted)


def _pull_and_install(run, running, daemon, root):
    agent = Agent(daemon.directory, daemon, running.endpoints)
    agent.run("pull", str(running.large))
    agent.run("install", str(running.large))
    return sum(path.stat().st_size for path in (agent.store / "blobs" / "sha256").iterdir())


def _docker_pull(run, running, daemon, root):
    connection = UnixConnection(str(daemon.socket), 600)
    try:
        connection.request("POST", f"/images/create?fromImage={running.address}")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    failed = [line for line in lines if "error" in json.loads(line)]
    if failed:
        raise BenchError(f"docker pull: {failed[0]}")
    return 0


def _skopeo(run, running, daemon, root):
    _copy(run, daemon, root, f"docker://{running.address}", "docker-daemon:bench/image:large")
    return 0


def _skopeo_by_way_of_blobs(run, running, daemon, root):
    _copy(run, daemon, root, f"docker://{running.address}", "oci:/mnt/kept:large")
    _copy(run, daemon, root, "oci:/mnt/kept:large", "docker-daemon:bench/image:large")
    return 0


def _copy(run, daemon, root, source, target):
    # What it puts aside lies on the measured disk too, as it would on a device.
    aside, log = daemon.directory / "aside", Path(run.scratch, "skopeo.log")
    aside.mkdir(exist_ok=True)
    daemon_options = ["--dest-daemon-host", "unix:///mnt/docker.sock"] if target.startswith("docker-daemon:") else []
    argv = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", *daemon_options, source, target]
    if roots.run(root, argv, run.progress, log=log, binds={daemon.directory: "/mnt", aside: "/var/tmp"}):
        raise BenchError(f"skopeo: {roots.last_lines(log)}")
