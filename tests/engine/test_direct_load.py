# SPDX-License-Identifier: MIT
"""The ways by which an image gets from the store into a real dockerd, stock and with the layer's patches."""

import bz2
import contextlib
import gzip
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import hostsetup
import moby.build
from composeapps.app.tree import StoreSource, load_image
from composeapps.engine import loading
from composeapps.engine.client import Engine, _archive
from composeapps.engine.loading import DIRECT, LINKED, NOTES, SENT, load
from composeapps.engine.names import tag_of
from composeapps.errors import CorruptError, NotFoundError
from composeapps.installed.install import find_image
from composeapps.oci.reference import parse_pinned
from composeapps.store.store import Store
from support.engine import DockerDaemon
from support.images import CONFIG, MANIFEST, descriptor, dump, make_image, sha256, tar
from support.unixconnection import UnixConnection

pytestmark = pytest.mark.root

WAYS = (DIRECT, LINKED, SENT)
MB = 1000 * 1000


@pytest.fixture(scope="module")
def daemons(device_root, tmp_path_factory):
    """Return dockerds by name, each started when it is asked for first: "stock", "patched"."""
    running = {}

    def daemon(name):
        if name not in running:
            running[name] = _daemon(device_root, tmp_path_factory.mktemp(name), name)
            running[name].start()
        return running[name]

    yield daemon
    for each in running.values():
        each.stop()


def _daemon(device_root, directory, name):
    if name == "stock":
        return DockerDaemon(device_root, directory)
    return DockerDaemon(device_root, directory, dockerd=moby.build.patched() / "dockerd",
                        env={"DOCKER_LOAD_ROOTS": str(directory / "stores")})


@pytest.fixture
def place(daemons, small_disk, factory_name):
    """Return for a way the dockerd and the store that make an image take it."""
    def arrange(way, daemon=None):
        daemon = daemon or daemons("patched" if way == DIRECT else "stock")
        # A file system of its own, out of dockerd's sight, leaves the socket alone.
        root = small_disk if way == SENT else daemon.directory / "stores"
        return SimpleNamespace(daemon=daemon, store=Store(root / factory_name), engine=Engine(daemon.host), way=way)

    return arrange


def _image(store, layers=()):
    """Put an image into the store, busybox below ``layers`` ({path: content} each); no other is the same."""
    busybox = Path(hostsetup.TOOLS, "bin", "busybox").read_bytes()
    image = make_image(layers=[tar({"bin/busybox": busybox}, mode=0o755), *(tar(files) for files in layers)],
                       labels={"once": secrets.token_hex(8)})
    for digest, data in {**image.blobs, image.digest: image.content}.items():
        store.add_blob(digest, [data])
    return load_image(StoreSource(store), parse_pinned(f"hub.demo.test/load/{secrets.token_hex(4)}@{image.digest}"))


def _zstd(data):
    """Return ``data`` as a frame of zstd whose blocks are not compressed."""
    blocks = [data[start:start + 100_000] for start in range(0, len(data), 100_000)] or [b""]
    last = len(blocks) - 1
    heads = [(len(block) << 3 | (number == last)).to_bytes(3, "little") for number, block in enumerate(blocks)]
    # A frame of one segment that tells its size in four bytes.
    return b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little") + b"".join(map(bytes.__add__, heads, blocks))


def _odd_image(store, own):
    """Put an image into the store: busybox in zstd, a layer of no bytes, an archive of nothing, and a file in bzip2."""
    busybox = tar({"bin/busybox": Path(hostsetup.TOOLS, "bin", "busybox").read_bytes()}, mode=0o755)
    contents = (busybox, b"", bytes(1024), tar({"a": own}))
    packed = (_zstd(busybox), b"", gzip.compress(bytes(1024), mtime=0), bz2.compress(contents[3]))
    kinds = ("tar+zstd", "tar", "tar+gzip", "tar")
    config = dump({"architecture": "amd64", "os": "linux", "config": {},
                   "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in contents]}})
    layers = [descriptor(f"application/vnd.oci.image.layer.v1.{kind}", data)
              for kind, data in zip(kinds, packed, strict=True)]
    content = dump({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config), "layers": layers})
    for data in (config, content, *packed):
        store.add_blob(sha256(data), [data])
    return load_image(StoreSource(store), parse_pinned(f"hub.demo.test/load/{secrets.token_hex(4)}@{sha256(content)}"))


def _load(here, image, notes=None):
    return load(here.engine, here.store, image, tag_of(image.ref), (notes if notes is not None else []).append)


def _layer(image, number):
    return image.variants[0].document.layers[number]


def _damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _kept(daemon):
    """Return the names of everything that dockerd keeps for images, and of its temporary files."""
    image = daemon.data_root / "image" / "overlay2"
    places = (image / "layerdb" / "sha256", image / "layerdb" / "tmp", image / "imagedb" / "content" / "sha256",
              daemon.data_root / "overlay2", daemon.data_root / "overlay2" / "l", daemon.data_root / "tmp")
    return {f"{place}/{name}" for place in places if place.is_dir() for name in os.listdir(place)}


def _until(condition, what):
    """Wait for something that nothing announces."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def _temporary(daemon):
    return os.listdir(daemon.data_root / "tmp")


def _run(here, image, *command):
    """Run a container of an image; return what it printed."""
    argv = [here.daemon.base / "usr/bin/docker", "--host", here.daemon.host, "run", "--rm", "--network", "none",
            find_image(image, here.engine), *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_layers_of_any_kind_by_each_way(place, way):
    here, own = place(way), secrets.token_hex(8)
    image = _odd_image(here.store, own)
    _load(here, image)
    assert here.engine.image(tag_of(image.ref))["RootFS"]["Layers"] == list(image.variants[0].config.diff_ids)
    assert _run(here, image, "/bin/busybox", "cat", "/a") == own


@pytest.mark.parametrize("way", WAYS)
def test_an_image_is_the_same_by_each_way_and_runs(place, way):
    here, notes, own = place(way), [], secrets.token_hex(8)
    image = _image(here.store, [{"a": own, "b": "lower"}, {"b": "upper"}])
    assert _load(here, image, notes) == way and notes == [NOTES[way]]
    found = here.engine.image(tag_of(image.ref))
    variant = image.variants[0]
    assert found["Id"] == variant.document.config.digest
    assert found["RootFS"]["Layers"] == list(variant.config.diff_ids)
    assert _run(here, image, "/bin/busybox", "cat", "/a", "/b") == f"{own}upper"
    assert _temporary(here.daemon) == []


def test_a_patched_dockerd_knows_the_image_by_its_digest(place):
    here = place(DIRECT)
    image = _image(here.store)
    _load(here, image)
    pinned = f"{image.ref.repository}@{image.ref.digest}"
    assert here.engine.image(pinned)["Id"] == image.variants[0].document.config.digest


@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_blob_is_named_and_leaves_nothing(place, way):
    here = place(way)
    _load(here, _image(here.store))
    image = _image(here.store, [{"one": os.urandom(MB)}, {"two": os.urandom(MB)}, {"three": "3"}])
    layer = _layer(image, 2)
    path = here.store.blob_path(layer.digest)
    whole = path.read_bytes()
    _damage(path)
    before = _kept(here.daemon)
    with pytest.raises(CorruptError, match=f"blob {layer.digest} in {here.store.root} is damaged.*: fetch it again"):
        _load(here, image)
    assert find_image(image, here.engine) is None
    # Of blobs that were sent the agent hangs up, and dockerd removes what it had of them after that.
    _until(lambda: _kept(here.daemon) == before, "dockerd keeps what it had of a damaged image")
    path.write_bytes(whole)
    assert _load(here, image) == way
    assert len(_run(here, image, "/bin/busybox", "cat", "/three")) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_or_short_blob_is_named(place, way):
    here = place(way)
    image = _image(here.store, [{"one": os.urandom(MB)}])
    layer = _layer(image, 1)
    path = here.store.blob_path(layer.digest)
    path.write_bytes(path.read_bytes()[:MB // 2])
    with pytest.raises(CorruptError, match=f"blob {layer.digest} in .* has {MB // 2} bytes, not {layer.size}"):
        _load(here, image)
    path.unlink()
    with pytest.raises(NotFoundError, match=f"blob {layer.digest} is not in the store"):
        _load(here, image)
    _until(lambda: _temporary(here.daemon) == [], "dockerd keeps what it was sent")


def test_a_store_that_dockerd_may_not_read_is_loaded_from_all_the_same(place, factory_name):
    here = place(DIRECT)
    here.store, own = Store(here.daemon.directory / "elsewhere" / factory_name), secrets.token_hex(8)
    image = _image(here.store, [{"a": own}])
    assert _load(here, image) == LINKED
    assert _run(here, image, "/bin/busybox", "cat", "/a") == own
    image = _image(here.store, [{"a": own[::-1]}])
    _damage(here.store.blob_path(_layer(image, 1).digest))
    with pytest.raises(CorruptError, match=_layer(image, 1).digest):
        _load(here, image)


def test_a_way_that_dockerd_does_not_take_is_tried_once(place):
    here, notes = place(SENT), []
    asked = []
    take, here.engine.load = here.engine.load, lambda manifest, blobs: (asked.append(manifest), take(manifest, blobs))
    for _ in range(3):
        assert _load(here, _image(here.store, [{"a": secrets.token_hex(4)}]), notes) == SENT
    assert ["BlobsDir" in manifest[0] for manifest in asked] == [True, False, False, False]
    assert notes == [NOTES[SENT]]


@pytest.mark.parametrize("way", (DIRECT, LINKED))
def test_a_symbolic_link_in_the_place_of_a_blob_is_not_followed_unverified(place, way):
    here, own = place(way), secrets.token_hex(8)
    image = _image(here.store, [{"a": own}])
    path = here.store.blob_path(_layer(image, 1).digest)
    outside = here.store.root / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)
    whole = outside.read_bytes()
    _damage(outside)
    with pytest.raises(CorruptError, match=path.name):
        _load(here, image)
    outside.write_bytes(whole)
    assert _load(here, image) != DIRECT
    assert _run(here, image, "/bin/busybox", "cat", "/a") == own


def _read_by(daemon):
    """Return how many bytes dockerd has read so far."""
    return int(dict(line.split(": ") for line in Path(f"/proc/{daemon.pid}/io").read_text().splitlines())["rchar"])


@pytest.mark.parametrize("way", (DIRECT, LINKED))
def test_layers_that_dockerd_has_are_not_read_again(place, way):
    here = place(way)
    shared = {"shared": os.urandom(6 * MB)}
    before = _read_by(here.daemon)
    _load(here, _image(here.store, [shared]))
    first = _read_by(here.daemon) - before
    image = _image(here.store, [shared, {"own": "1"}])
    before = _read_by(here.daemon)
    assert _load(here, image) == way
    second = _read_by(here.daemon) - before
    assert first > 6 * MB and second < MB
    assert _run(here, image, "/bin/busybox", "cat", "/own") == "1"


# Loads an image and, when it has come to where it is to be killed, says so and waits.
_LOADER = """
import sys, threading
from composeapps.engine import loading
from composeapps.engine import loading
from composeapps.app.tree import StoreSource, load_image
from composeapps.engine.client import Engine
from composeapps.engine.names import tag_of
from composeapps.oci.reference import parse_pinned
from composeapps.store.store import Store

def halt():
    print("here", flush=True)
    threading.Event().wait()

def halted(chunks):
    yield from chunks
    halt()

class Halting(Store):
    def chunks(self, digest, size=None):
        chunks = super().chunks(digest, size)
        return halted(chunks) if digest == sys.argv[4] else chunks

host, root, ref, _digest, way = sys.argv[1:]
store = Store(root)
image = load_image(StoreSource(store), parse_pinned(ref))
if way == "linked":
    link = loading._link_blobs
    loading._link_blobs = lambda *args: (link(*args), halt())
loading.load(Engine(host), Halting(root), image, tag_of(image.ref))
"""


def _halted(here, image):
    """Start a load in a process of its own that stops in the middle; return the process."""
    argv = [sys.executable, "-c", _LOADER, here.daemon.host, str(here.store.root), str(image.ref),
            _layer(image, 1).digest if here.way == SENT else "", here.way]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "here\n"
    return child


@pytest.mark.parametrize("way", (LINKED, SENT))
def test_an_agent_that_is_killed_in_the_middle_leaves_nothing(place, way):
    here = place(way)
    _load(here, _image(here.store))
    image = _image(here.store, [{"one": os.urandom(MB)}, {"two": os.urandom(MB)}])
    before = _kept(here.daemon)
    child = _halted(here, image)
    assert len(_temporary(here.daemon)) == 1
    child.kill()
    child.communicate()
    _until(lambda: _kept(here.daemon) == before, "dockerd keeps what an agent left that is gone")
    assert all(here.store.verify(layer.digest, layer.size) is None for layer in image.variants[0].document.layers)
    assert _load(here, image) == way
    assert _run(here, image, "/bin/busybox", "echo", "runs") == "runs\n"
    assert _temporary(here.daemon) == []


class _Gone(Engine):
    """An agent that dies when it has sent its request."""

    def load(self, manifest, blobs):
        connection = UnixConnection(self._path, 60)
        connection.request("POST", f"{self.api}/images/load?quiet=1", b"".join(_archive(manifest, blobs)))
        connection.close()


def test_an_agent_that_does_not_wait_for_the_answer_leaves_a_whole_image_or_none(place):
    here = place(DIRECT)
    image = _image(here.store, [{"one": os.urandom(3 * MB)}, {"two": "2"}])
    load(_Gone(here.daemon.host), here.store, image, tag_of(image.ref))
    assert _load(here, image) == DIRECT
    assert _run(here, image, "/bin/busybox", "cat", "/two") == "2"
    _until(lambda: _temporary(here.daemon) == [], "the temporary directory stays")


@pytest.mark.parametrize("way", WAYS)
def test_a_dockerd_that_is_killed_in_the_middle_loads_after_its_next_start(
        place, device_root, tmp_path_factory, way):
    with _daemon(device_root, tmp_path_factory.mktemp("own"), "patched" if way == DIRECT else "stock") as daemon:
        here = place(way, daemon)
        image = _image(here.store, [{"one": os.urandom(20 * MB if way == DIRECT else MB)}, {"two": "2"}])
        if way == DIRECT:
            load(_Gone(here.daemon.host), here.store, image, tag_of(image.ref))
            writing = daemon.data_root / "image" / "overlay2" / "layerdb" / "tmp"
            _until(lambda: writing.is_dir() and os.listdir(writing), "dockerd does not begin with a layer")
            daemon.stop()
        else:
            child = _halted(here, image)
            daemon.stop()
            child.kill()
            child.communicate()
        daemon.start()
        _until(lambda: _temporary(daemon) == [] and not (daemon.data_root / "tmp-old").exists(),
               "dockerd keeps its temporary files over a start")
        assert all(here.store.verify(layer.digest, layer.size) is None for layer in image.variants[0].document.layers)
        assert _load(here, image) == way
        assert _run(here, image, "/bin/busybox", "cat", "/two") == "2"


def _with_pipes(manifest, config, layers):
    """Return a load archive whose layers are named pipes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in (config, ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name in layers:
            info = tarfile.TarInfo(name)
            info.type = tarfile.FIFOTYPE
            archive.addfile(info)
    return out.getvalue()


def _waits_for_a_pipe(daemon):
    return any(task.read_text() == "wait_for_partner" for task in Path(f"/proc/{daemon.pid}/task").glob("*/wchan"))


def test_named_pipes_would_leave_dockerd_waiting_for_an_agent_that_is_gone(place):
    """Why no way of loading uses them: see composeapps.engine.loading."""
    here = place(LINKED)
    image = _image(here.store, [{"one": secrets.token_hex(8)}])
    document = image.variants[0].document
    config = document.config.digest.removeprefix("sha256:")
    layers = [layer.digest.removeprefix("sha256:") for layer in document.layers]
    body = _with_pipes([{"Config": config, "RepoTags": ["pipes:1"], "Layers": layers}],
                       (config, here.store.read(document.config.digest)), layers)
    connection = UnixConnection(here.engine.host.removeprefix("unix://"), 60)
    connection.request("POST", f"{here.engine.api}/images/load?quiet=1", body)
    _until(lambda: _waits_for_a_pipe(here.daemon), "dockerd does not come to the layers")
    connection.close()
    assert _load(here, _image(here.store, [{"two": secrets.token_hex(8)}])) == LINKED, "any other load goes on"
    assert _waits_for_a_pipe(here.daemon) and len(_temporary(here.daemon)) == 1
    # Whoever opens a pipe sets it free, so that this dockerd is of use to the next test.
    (left,) = (here.daemon.data_root / "tmp").iterdir()
    while left.exists():
        for name in layers:
            with contextlib.suppress(OSError):
                os.close(os.open(left / name, os.O_WRONLY | os.O_NONBLOCK))


class _Counting(Engine):
    """Notes the sizes of the files that each archive holds."""

    def load(self, manifest, blobs):
        sizes = []
        self.sent = [*getattr(self, "sent", []), sizes]

        def counted():
            for name, size, chunks in blobs:
                sizes.append(size)
                yield name, size, chunks

        super().load(manifest, counted())


def _shared_layers(here, times=1):
    """Return two images that have a layer of 2 MB in common, and one of their own on top."""
    shared = {"shared": os.urandom(2 * MB)}
    return [_image(here.store, [shared, *[{"own": secrets.token_hex(4)}] * times]) for _ in range(2)]


def test_layers_that_dockerd_has_are_not_sent_again(place):
    here = place(SENT)
    here.engine = _Counting(here.engine.host)
    first, second = _shared_layers(here, 2)
    assert _load(here, first) == SENT and _load(here, second) == SENT
    assert sum(here.engine.sent[-2]) > 2 * MB > sum(here.engine.sent[-1]) > 0
    assert _run(here, second, "/bin/busybox", "wc", "-c", "/shared").split()[0] == str(2 * MB)
    assert _load(here, _shared_layers(here)[0]) == SENT, "what it lacks is sent"


def test_a_dockerd_that_wants_all_layers_gets_them(place, monkeypatch):
    """As one that keeps images in containerd does; here it is told of layers that it lacks."""
    here = place(SENT)
    here.engine = _Counting(here.engine.host)
    (image, _other) = _shared_layers(here)
    monkeypatch.setattr(loading, "_count_present", lambda engine, variant: 2)
    assert _load(here, image) == SENT
    assert sum(here.engine.sent[-2]) < 2 * MB < sum(here.engine.sent[-1])
    assert len(_run(here, image, "/bin/busybox", "cat", "/own")) == 8
    _load(here, _shared_layers(here)[0])
    assert len(here.engine.sent) == 4, "it is not tried again"
