# SPDX-License-Identifier: MIT
"""Pulling an app of 300 MB: beside skopeo, over a slow and far link, killed all the time, with packets lost."""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from bench import sample
from bench.figures import BenchError, Figure, compare, timed
from composeapps.app.publish import publish
from composeapps.oci.digests import sha256
from composeapps.oci.documents import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, dump_json
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse, parse_pinned
from composeapps.registry.client import RegistryClient
from factory.localregistry import LocalRegistry
from support.link import Link, payload_rate
from support.meter import Meter

HOST = "bench.example.com"
MB, MIB = 1000 * 1000, 1024 * 1024
# Bytes of the layers: as they come for the incompressible ones; of the files for the others, 300 MB of both.
RANDOM_LAYERS = tuple(size * MB for size in (90, 70, 50, 40, 25, 15, 7, 3))
TYPICAL_FILES = tuple(size * MB for size in (138, 108, 78, 62, 39, 23, 11, 5))
SMALL_LAYERS = tuple(size // 50 for size in RANDOM_LAYERS)
KILLS = 20
# 20 Mbit/s, and 50 ms there and back.
RATE, DELAY = 20e6 / 8, 0.025
LOSS = 0.2
_MEASURED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
report, sys.argv = sys.argv[2], ["composeapps", *sys.argv[3:]]
from composeapps.cli.main import main
code = main()
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
Path(report).write_text(peak.split()[1])
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    """Seconds on the ``wall`` and of the ``cpu``, and the most memory (bytes, 0 when it was not looked at)."""

    wall: float
    cpu: float
    memory: int = 0


@dataclass(frozen=True)
class Hub:
    """A running registry with apps: {name: pinned Reference} of the ``apps`` and of their ``images``."""

    registry: LocalRegistry
    apps: dict
    images: dict


@contextlib.contextmanager
def hub(run):
    """Start a registry with both apps, whose content is made when it is not in the cache; give the Hub."""
    key = hashlib.sha256(b"".join(Path(path).read_bytes() for path in (__file__, sample.__file__))).hexdigest()[:16]
    root = Path(run.cache, f"pulls-{key}")
    if not (root / "refs.json").exists():
        shutil.rmtree(root, ignore_errors=True)
        kept, picture = sample.image(run.cache, run.progress, TYPICAL_FILES)
        with run.progress.step("publishing two apps of 300 MB (once)"), \
                LocalRegistry(root / "registry", host=HOST) as registry:
            client = RegistryClient(endpoints={HOST: registry.url})
            document = picture.variants[0].document
            typical = [(layer, functools.partial(open, kept.blob_path(layer.digest), "rb"))
                       for layer in document.layers]
            refs = {"typical": _publish(client, "typical", typical, picture.variants[0].config.diff_ids),
                    "random": _publish(client, "random", _random_layers(RANDOM_LAYERS)),
                    "small": _publish(client, "small", _random_layers(SMALL_LAYERS))}
            client.close()
        (root / "refs.json").write_text(json.dumps(refs))
    refs = json.loads((root / "refs.json").read_text())
    apps = {name: parse_pinned(pair[0]) for name, pair in refs.items()}
    images = {name: parse_pinned(pair[1]) for name, pair in refs.items()}
    with LocalRegistry(root / "registry", host=HOST) as registry:
        yield Hub(registry, apps, images)


def _random_layers(sizes):
    for number, size in enumerate(sizes):
        data = gzip.compress(random.Random(number).randbytes(size), 1, mtime=0)
        yield Descriptor.of(data, OCI_LAYER_GZIP), functools.partial(io.BytesIO, data)


def push_image(client, ref, layers, diff_ids=None, indexed=False):
    """Push an image of ``layers``, (Descriptor, opener) each, in an index if wanted; return its reference, a text."""
    descriptors = []
    for descriptor, opener in layers:
        client.push_blob(ref, descriptor.digest, descriptor.size, opener)
        descriptors.append(descriptor)
    config = dump_json({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {
        "type": "layers", "diff_ids": diff_ids or [each.digest for each in descriptors]}})
    client.push_blob(ref, sha256(config), len(config), lambda: io.BytesIO(config))
    manifest = dump_json({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": Descriptor.of(config, OCI_CONFIG).dump(),
        "layers": [each.dump() for each in descriptors]})
    client.push_manifest(ref.pinned(sha256(manifest)), manifest, OCI_MANIFEST)
    index = dump_json({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [Descriptor.of(manifest, OCI_MANIFEST, platform=Platform("linux", "amd64", "")).dump()]})
    root, kind = (index, OCI_INDEX) if indexed else (manifest, OCI_MANIFEST)
    client.push_manifest(ref, root, kind)
    return str(ref.pinned(sha256(root)))


def _publish(client, name, layers, diff_ids=None):
    """Push an image of ``layers`` and an app; return the pinned references of both."""
    image = push_image(client, parse(f"{HOST}/bench/{name}-image:1"), layers, diff_ids)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "docker-compose.yml").write_text(f"services:\n  web:\n    image: {image}\n")
        app = publish(directory, parse(f"{HOST}/bench/{name}:1"), client, layers_meta=False)
    return str(app.ref), image


class Agent:
    """``composeapps pull`` with a store of its own.

    Arguments:
        root: a directory, for the store and the configuration.
        address: where the registry listens, HOST:PORT.
        prefix: words before the command.
    """

    def __init__(self, root, address, prefix=()):
        self.root, self._prefix = Path(root), list(prefix)
        self.store = self.root / "store"
        self.root.mkdir(parents=True, exist_ok=True)
        self._config = self.root / "config.toml"
        self._config.write_text(f'[pacman]\nreset_apps_root = "{self.store}"\nstorage_watermark = 95\n'
                                f'[composeapps]\nstate_dir = "{self.root}/state"\n')
        self._environ = {"PATH": os.environ["PATH"], "COMPOSEAPPS_ENDPOINTS": f"{HOST}=http://{address}"}

    def start(self, ref, *options):
        """Start a pull; return the process."""
        argv = [*self._prefix, sys.executable, "-I", "-X", f"pycache_prefix={hostsetup.BUILD / 'pycache'}", "-c",
                _MEASURED, str(hostsetup.TOP / "meta-composeapps" / "lib"), str(self.root / "peak"),
                "--config", str(self._config), "pull", *options, str(ref)]
        return subprocess.Popen(argv, env=self._environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def pull(self, ref, *options):
        """Pull to the end; return the Cost."""
        used = cost(self.start(ref, *options))
        return Cost(used.wall, used.cpu, int((self.root / "peak").read_text()) * 1024)

    def there(self):
        """Return how many bytes of blobs the store has, whole and partial."""
        files = [*self.store.glob("blobs/sha256/*"), *self.store.glob("ingest/*.part")]
        return sum(path.stat().st_size for path in files)


def cost(child):
    """Wait for a process that was started just now; return its Cost."""
    used = []

    def finish():
        err = child.stderr.read()
        _pid, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stderr.close()
        if child.returncode:
            raise BenchError(f"{child.args[-1]}: {err.strip()[:300]} … {err.strip()[-300:]}")
        used.append(usage.ru_utime + usage.ru_stime)

    return Cost(timed(finish), used[0])


def _skopeo(hub, ref, place):
    argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false",
            f"docker://{hub.registry.address}/{ref.path}@{ref.digest}", f"oci:{place}"]
    return cost(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                  text=True))


def pull_local(run):
    """Yield the Figures of a pull from a registry on this machine, beside skopeo."""
    with hub(run) as running:
        peak = 0
        for name, words in (("random", "incompressible layers"), ("typical", "typical layers")):
            def ours(name=name):
                with _emptied(run, "ours") as place:
                    return Agent(place, running.registry.address).pull(running.apps[name])

            def theirs(name=name):
                with _emptied(run, "theirs") as place:
                    return _skopeo(running, running.images[name], place / "oci")

            results = run.in_turns(pull=ours, skopeo=theirs)
            peak = max(peak, *(cost.memory for cost in results["pull"]))
            yield compare(f"pull, {words}: wall", "s", results, "pull", "skopeo", 0.8, lambda cost: cost.wall)
            yield compare(f"pull, {words}: CPU", "s", results, "pull", "skopeo", 1.2, lambda cost: cost.cpu)
        yield Figure("pull: peak memory", peak / MIB, "MiB", bar=64)


def pull_far(run):
    """Yield the Figure of a pull over a slow and far link, and one of a link that loses packets."""
    with hub(run) as running:
        for name, app, link, bar in (
                ("300 MB at 20 Mbit/s and 50 ms: wall", "random", {"rate": RATE, "delay": DELAY}, 1.02),
                ("6 MB with 20 % of the packets lost: wall", "small",
                 {"rate": RATE, "delay": DELAY, "loss": LOSS}, None)):
            with _emptied(run, "far") as place, Link(**link) as wire, \
                    Meter(running.registry.address, wire.listening, send_buffer=None) as meter, \
                    run.progress.step(name):
                used = Agent(place, meter.address, wire.enter).pull(running.apps[app])
                yield Figure(name, used.wall, "s", "the link's limit", meter.delivered / payload_rate(RATE), bar)


def pull_killed(run):
    """Yield the Figures of a pull that is killed at random points, each time going on with the next one."""
    chance = random.Random(run.rounds)
    with hub(run) as running, _emptied(run, "killed") as place, Meter(running.registry.address) as meter:
        ref, size = running.apps["random"], sum(RANDOM_LAYERS)
        agent, twice = Agent(place, meter.address), []
        points = sorted(chance.uniform(0, size) for _ in range(KILLS))
        with run.progress.step(f"pulling, killed {KILLS} times"):
            for point in points:
                there, before = agent.there(), meter.settle()
                with agent.start(ref) as child:
                    if not meter.wait_for(before + max(point - there, 0), 60):
                        raise BenchError("the pull did not go on")
                    child.send_signal(signal.SIGKILL)
                    child.stderr.read()
                twice.append(meter.settle() - before - (agent.there() - there))
            agent.pull(ref)
        samples = {"each": [round(count / MIB, 3) for count in twice]}
        yield Figure("bytes fetched twice for a kill, on average", sum(twice) / len(twice) / MIB, "MiB", bar=1,
                     samples=samples)
        yield Figure("the most for one kill", max(twice) / MIB, "MiB", bar=1, samples=samples)


@contextlib.contextmanager
def _emptied(run, name):
    """Give an empty directory, with nothing of what ran before still to be written; it is removed."""
    place = Path(run.scratch, name)
    place.mkdir()
    os.sync()
    try:
        yield place
    finally:
        shutil.rmtree(place)
