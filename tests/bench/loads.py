# SPDX-License-Identifier: MIT
"""Loading an image from the store into dockerd: what durability costs, and what not streaming it saves."""

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench import sample
from bench.disk import allocated, disk, forget_cached
from bench.figures import BenchError, Figure, compare, timed
from composeapps import durable
from composeapps.engine import loading
from composeapps.engine.client import Engine
from composeapps.store.store import Store
from moby import build
from moby.root import engine_root
from support.engine import DockerDaemon

MOUNTPOINT = Path("/run/composeapps-bench")
MB = 1000 * 1000
# The ways that are ruled out so that dockerd is left with the one that is measured.
_OTHER = {
    loading.DIRECT: set(), loading.LINKED: {loading.DIRECT}, loading.SENT: {loading.DIRECT, loading.LINKED},
}


@dataclass(frozen=True)
class Loaded:
    """One load: ``seconds`` until durable; bytes that were ``written`` and that the layers take (``extracted``)."""

    seconds: float
    written: int
    extracted: int


def load_once(run, engine, way, eager=False):
    """Load the sample on a disk of its own, with everything cold; return the Loaded.

    Arguments:
        run: the Run.
        engine: "stock" or "patched".
        way: of composeapps.engine.loading.
        eager: have the disk write back at once, so that ``written`` counts what does not last too.
    """
    kept, image = sample.image(run.cache, run.progress)
    with disk(run.scratch, MOUNTPOINT) as place:
        store = Store(place.root / "store")
        shutil.copytree(kept.blobs, store.blobs)
        root, dockerd = engine_of(engine, run.progress)
        daemon = DockerDaemon(root, place.root, dockerd=dockerd, env={"DOCKER_LOAD_ROOTS": str(store.root)})
        with daemon:
            client = Engine(daemon.host)
            client.ruled_out |= _OTHER[way]
            forget_cached(store.root)
            if eager:
                with place.eager_writeback():
                    seconds, written = _load(client, store, image, place, way)
            else:
                seconds, written = _load(client, store, image, place, way)
            extracted = allocated((daemon.data_root / "overlay2").glob("*/diff"))
    return Loaded(seconds, written, extracted)


_engines = {}


def engine_of(name, progress):
    """Return (root, dockerd) of "stock" or "patched"; one and the same for the whole run."""
    if name not in _engines:
        built = {"stock": build.stock, "patched": build.patched}[name](progress)
        _engines[name] = engine_root(progress), built / "dockerd"
    return _engines[name]


def _load(client, store, image, place, way):
    before = place.written()

    def until_durable():
        taken = loading.load(client, store, image, f"{image.ref.repository}:sample")
        if taken != way:
            raise BenchError(f"dockerd took the image '{taken}', not '{way}'")
        durable.sync_filesystem(place.root)

    seconds = timed(until_durable)
    return seconds, place.written() - before


def _seconds(loaded):
    return loaded.seconds


def load_durable(run):
    """Compare patched with stock, both streamed: what syncing each layer costs."""
    results = run.in_turns(
        patched=functools.partial(load_once, run, "patched", loading.SENT),
        stock=functools.partial(load_once, run, "stock", loading.SENT))
    yield compare("streamed, until durable", "s", results, "patched", "stock", 1.05, _seconds)


def direct_load(run):
    """Compare a direct load by the patched dockerd, layers side by side, with the stock one's streamed load."""
    yield from _against_streamed(run, "patched", loading.DIRECT, (0.9, 0.7))


def linked_load(run):
    """Compare a load by hard links with a streamed one, both by a stock dockerd."""
    yield from _against_streamed(run, "stock", loading.LINKED, (0.9,))


def _against_streamed(run, engine, way, bars):
    eager = {}
    for name, which, how in ((way, engine, way), ("streamed", "stock", loading.SENT)):
        with run.progress.step(f"bytes written: {name}"):
            eager[name] = load_once(run, which, how, eager=True)
    for name, loaded in eager.items():
        yield Figure(f"{name}: bytes written", loaded.written / MB, "MB", "extracted", loaded.extracted / MB,
                     1.03 if name == way else None)
    results = run.in_turns(**{
        way: functools.partial(load_once, run, engine, way),
        "streamed": functools.partial(load_once, run, "stock", loading.SENT)})
    for bar in bars:
        yield compare(f"{way}, until durable", "s", results, way, "streamed", bar, _seconds)
