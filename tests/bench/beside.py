# SPDX-License-Identifier: MIT
"""The commands beside composectl's, the program being the user's own: each pair in turns, over TLS.

One app of 150 MB in incompressible layers, in a registry on this machine with a certificate of its own authority.
Each side has a home of its own, so that neither finds what the other left.
"""

import contextlib
import ctypes
import functools
import gzip
import io
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from bench.disk import disk
from bench.figures import BenchError, compare
from bench.hub import COMPOSE
from bench.loads import MOUNTPOINT, engine_of
from bench.pulls import MB, cost, push_image
from composeapps.app.publish import publish
from composeapps.oci.digests import sha256
from composeapps.oci.documents import OCI_LAYER_GZIP, Descriptor
from composeapps.oci.reference import Reference, parse
from composeapps.registry.client import RegistryClient
from support.certificates import make_server_certificate
from support.engine import DockerDaemon
from support.images import tar
from support.link import CLONE_NEWNET
from support.registries import Registry

NAME = "hub.bench.test"
LOOPBACK, ELSEWHERE = "127.0.0.1", "198.51.100.1"
SIZES = tuple(size * MB for size in (60, 40, 25, 15, 7, 3))
HALF = (0, 3, 6)
_MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from composeapps.cli.main import program; program()"


@dataclass(frozen=True)
class Hub:
    """A registry, its authority's certificate, and two versions of an app: with all layers and with half of them."""

    registry: Registry
    ca_file: Path
    whole: Reference
    half: Reference
    sources: dict


@contextlib.contextmanager
def hub(run, address=LOOPBACK, plain=False):
    """Give the Hub, whose registry listens at an address of this machine, with TLS or ``plain``."""
    pem = make_server_certificate(run.scratch / "pki", [NAME])
    tls = None if plain else (pem.certificate, pem.key)
    registry = Registry(run.scratch / "registry", tls=tls, ca_file=pem.ca, listen=address)
    with registry:
        # composectl knows of no other place than the one that the name says.
        if plain:
            registry.host = registry.address
        else:
            registry.host = registry.address = f"{NAME}:{registry.address.rpartition(':')[2]}"
        hosts = run.scratch / "hosts"
        hosts.write_text(f"{Path('/etc/hosts').read_text()}\n{address} {NAME}\n")
        # In the mounts that are the benchmarks' own.
        subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
        client = RegistryClient({registry.host: registry.url}, context=ssl.create_default_context(cafile=pem.ca))
        refs, sources = {}, {}
        with run.progress.step("publishing an app of 150 MB"):
            layers = [_layer({f"opt/data{number}": random.Random(number).randbytes(size)})
                      for number, size in enumerate(SIZES)]
            layers.append(_layer({"bin/busybox": Path(hostsetup.TOOLS, "bin", "busybox").read_bytes()}))
            for name, chosen in (("whole", layers), ("half", [layers[number] for number in HALF])):
                image = push_image(client, parse(f"{registry.host}/bench/{name}-image:1"),
                                   [layer[:2] for layer in chosen], [layer[2] for layer in chosen], indexed=True)
                refs[name], sources[name] = _publish(run, client, registry, name, image)
        client.close()
        try:
            yield Hub(registry, pem.ca, refs["whole"], refs["half"], sources)
        finally:
            subprocess.run(["umount", "/etc/hosts"], check=True)


def _layer(files):
    """Return (Descriptor, opener, diff ID) of a layer of programs."""
    raw = tar(files, mode=0o755)
    data = gzip.compress(raw, 1, mtime=0)
    return Descriptor.of(data, OCI_LAYER_GZIP), functools.partial(io.BytesIO, data), sha256(raw)


def _publish(run, client, registry, name, image):
    source = run.scratch / f"source-{name}"
    source.mkdir()
    (source / "docker-compose.yml").write_text(COMPOSE.format(image=image))
    return publish(source, parse(f"{registry.host}/bench/{name}:1"), client, layers_meta=False).ref, source


class Side:
    """One of the two programs on a device of its own, below ``home``.

    Arguments:
        hub: the Hub.
        daemon: a support.engine.DockerDaemon, or None.
    """

    def __init__(self, home, hub, daemon=None):
        self.home = Path(home)
        programs = self.home / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        self.environ = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(self.home),
                        "SSL_CERT_FILE": str(hub.ca_file)}
        if daemon:
            self.environ["DOCKER_HOST"] = daemon.host
            (programs / "docker").write_text(f'#!/bin/sh\nshift\nexec {" ".join(daemon.compose_command)} "$@"\n')
            (programs / "docker").chmod(0o755)

    def run(self, *argv, cwd=None):
        """Run a command to its end; return the pulls.Cost."""
        return cost(subprocess.Popen([*self.program, *map(str, argv)], env=self.environ, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=cwd))


class Ours(Side):
    """composeapps."""

    def __init__(self, home, hub, daemon=None):
        super().__init__(home, hub, daemon)
        config = self.home / "config.toml"
        engine = (f'docker_host = "{daemon.host}"\ncompose_command = {json.dumps(list(daemon.compose_command))}\n'
                  if daemon else "")
        config.write_text(f'[pacman]\nreset_apps_root = "{self.home}/store"\nstorage_watermark = 95\n'
                          f'compose_apps_root = "{self.home}/compose"\n'
                          f'[composeapps]\nstate_dir = "{self.home}/state"\n{engine}'
                          f'[registry."{hub.registry.host}"]\nurl = "{hub.registry.url}"\n'
                          f'ca_file = "{hub.ca_file}"\n')
        self.environ["COMPOSEAPPS_ENDPOINTS"] = hub.registry.endpoint
        # As on the device: neither the environment nor the directory decides what runs, and byte code is there.
        python = [sys.executable, "-I", "-X", f"pycache_prefix={hostsetup.BUILD / 'pycache'}", "-c", _MAIN,
                  str(hostsetup.TOP / "meta-composeapps" / "lib")]
        self._python, self.program = python, [*python, "--config", str(config)]

    def pull(self, ref):
        return self.run("pull", ref)

    def check(self, ref):
        return self.run("check", "--store-only", ref)

    def publish(self, source, target):
        return self.run("publish", source, target)

    def install(self, ref):
        return self.run("install", ref)

    def start(self, ref):
        return self.run("run", ref.app_name)


class Theirs(Side):
    """composectl."""

    def __init__(self, home, hub, program, daemon=None):
        super().__init__(home, hub, daemon)
        self.program = [str(program)]
        if hub.registry.url.startswith("http:"):
            self.environ["COMPOSE_APPS_PROXY"] = f"{hub.registry.url}/"

    def pull(self, ref):
        return self.run("pull", "-u", "95", ref)

    def check(self, ref):
        return self.run("check", "--local", ref)

    def publish(self, source, target):
        return self.run("publish", target, "amd64", cwd=source)

    def install(self, ref):
        return self.run("install", ref)

    def start(self, ref):
        return self.run("run", ref.app_name)


@contextlib.contextmanager
def _home(run, name, copied=None):
    """Give a directory, empty or a copy of ``copied``, with nothing still to be written; it is removed."""
    place = Path(run.scratch, name)
    if copied:
        shutil.copytree(copied, place, symlinks=True)
    else:
        place.mkdir()
    os.sync()
    try:
        yield place
    finally:
        shutil.rmtree(place)


def _wall(result):
    return result.wall


def _cpu(result):
    return result.cpu


def beside_pull(run):
    """Yield the Figures of pulling, and of pulling when half of the layers are there."""
    with hub(run) as running:
        def ours(copied=None):
            with _home(run, "ours", copied) as home:
                return Ours(home, running).pull(running.whole)

        def theirs(copied=None):
            with _home(run, "theirs", copied) as home:
                return Theirs(home, running, run.composectl).pull(running.whole)

        results = run.in_turns(composeapps=ours, composectl=theirs)
        yield compare("pull: wall", "s", results, "composeapps", "composectl", 0.9, _wall)
        yield compare("pull: CPU", "s", results, "composeapps", "composectl", 1.1, _cpu)
        half = {"ours": run.scratch / "ours-half", "theirs": run.scratch / "theirs-half"}
        Ours(half["ours"], running).pull(running.half)
        Theirs(half["theirs"], running, run.composectl).pull(running.half)
        # The configuration names the places of the copies.
        results = run.in_turns(composeapps=functools.partial(ours, half["ours"]),
                               composectl=functools.partial(theirs, half["theirs"]))
        yield compare("pull, half there: wall", "s", results, "composeapps", "composectl", 0.9, _wall)
        yield compare("pull, half there: CPU", "s", results, "composeapps", "composectl", 1.1, _cpu)


def beside_store(run):
    """Yield the Figures of checking a store and of listing it."""
    with hub(run) as running:
        ours, theirs = Ours(run.scratch / "ours", running), Theirs(run.scratch / "theirs", running, run.composectl)
        for side in (ours, theirs):
            side.pull(running.whole)
        results = run.in_turns(composeapps=lambda: ours.check(running.whole),
                               composectl=lambda: theirs.check(running.whole))
        yield compare("check: wall", "s", results, "composeapps", "composectl", 1.0, _wall)
        yield compare("check: CPU", "s", results, "composeapps", "composectl", None, _cpu)
        for command in ("ls", "ps"):
            results = run.in_turns(composeapps=lambda: ours.run(command),  # noqa: B023 - called in this turn
                                   composectl=lambda: theirs.run("ls"))
            figure = compare(f"{command}: CPU", "s", results, "composeapps", "composectl", None, _cpu)
            yield figure if command == "ls" else _alone(figure)


def beside_publish(run):
    """Yield the Figure of publishing an app once more."""
    with _network(), hub(run, ELSEWHERE) as running:
        ours, theirs = Ours(run.scratch / "ours", running), Theirs(run.scratch / "theirs", running, run.composectl)
        target = f"{running.registry.host}/bench/whole:2"
        for side in (ours, theirs):
            side.publish(running.sources["whole"], target)
        results = run.in_turns(composeapps=lambda: ours.publish(running.sources["whole"], target),
                               composectl=lambda: theirs.publish(running.sources["whole"], target))
        yield compare("publish again: wall", "s", results, "composeapps", "composectl", 1.2, _wall)


@contextlib.contextmanager
def _network():
    """Be in a network of one's own with an address beside loopback, at which composectl publishes without TLS alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise BenchError(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        for words in ("link set lo up", f"addr add {ELSEWHERE}/32 dev lo"):
            subprocess.run(["ip", *words.split()], check=True)
        yield
    finally:
        libc.setns(before, CLONE_NEWNET)
        os.close(before)


def _alone(figure):
    """Return a Figure of ours that composectl cannot be asked for without a dockerd."""
    return type(figure)(figure.name, figure.value, figure.unit, bar=0.06, samples={
        "composeapps": figure.samples["composeapps"]})


def beside_run(run):
    """Yield the Figures of installing, starting, and a run that has nothing to do, each side with its own dockerd."""
    root, dockerd = engine_of("patched", run.progress)
    results = {name: {"composeapps": [], "composectl": []} for name in ("install", "start", "run with nothing to do")}
    # A stock dockerd takes images by their digest from a registry alone, and without TLS from this machine alone.
    with hub(run, plain=True) as running:
        for number in range(run.rounds):
            for name in ("composeapps", "composectl")[::1 if number % 2 else -1]:
                with disk(run.scratch, MOUNTPOINT) as place:
                    home = place.root / "home"
                    daemon = DockerDaemon(root, place.root, dockerd=dockerd,
                                          env={"DOCKER_LOAD_ROOTS": str(home / "store")})
                    with daemon:
                        side = Ours(home, running, daemon) if name == "composeapps" else Theirs(
                            home, running, run.composectl, daemon)
                        side.pull(running.whole)
                        results["install"][name].append(side.install(running.whole))
                        results["start"][name].append(side.start(running.whole))
                        results["run with nothing to do"][name].append(side.start(running.whole))
                        side.run("stop", running.whole.app_name)
    if not all(results.values()):
        raise BenchError("nothing was measured")
    for name, pair in results.items():
        yield compare(f"{name}: CPU", "s", pair, "composeapps", "composectl", 1.0, _cpu)
        yield compare(f"{name}: wall", "s", pair, "composeapps", "composectl", None, _wall)
