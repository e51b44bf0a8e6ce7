# SPDX-License-Identifier: MIT
"""The ways by which an image gets from the store into dockerd.

Each reads less, and writes less, than the next one:

``direct``
    dockerd reads the blobs from the store itself and checks each one's digest: the agent sends
    the image's config and the store's directory. This takes the dockerd of this layer (its patch
    "direct load") with the store among its DOCKER_LOAD_ROOTS.
``linked``
    For any other dockerd. It unpacks what it is sent into a directory of its own before it reads
    a layer, and the agent puts hard links to the store's blobs there instead of sending them.
    dockerd checks the content of each layer against the image's config. This takes a store on the
    file system of dockerd's data directory, and an agent that may write there.
``sent``
    The blobs go through dockerd's socket, verified by the agent, and dockerd writes them to its
    own directory first. This always works, and serves the single blob that cannot be linked too. Layers
    that dockerd has at the bottom of another image are left out: it looks for a layer's file only
    when it lacks the layer. A dockerd that wants them all the same gets everything.

A way that a dockerd does not take is not tried again with it. Named pipes in the place of the
links would reach a store on any file system, but a dockerd whose agent dies between two layers
then waits in open(2) for ever, with what it loaded so far pinned; a link needs nobody.
"""

import contextlib
import itertools
import json
import os
import re
import stat
import time

from composeapps.engine import names
from composeapps.errors import LoadRefusedError

DIRECT, LINKED, SENT = "direct", "linked", "sent"
# Not a way, but ruled out like one: leaving out what dockerd has.
LACKING = "lacking"
NOTES = {
    DIRECT: "dockerd reads the layers from the store itself",
    LINKED: "dockerd gets the layers as hard links",
    SENT: "dockerd gets the layers through its socket",
}
# The directory into which dockerd unpacks what it is sent, below its own temporary one.
IMPORT_PREFIX = "docker-import-"
# Seconds until dockerd must have unpacked one empty file.
IMPORT_TIMEOUT = 5


def load(engine, store, image, tag, notify=lambda text: None):
    """Load an image for one platform.

    Arguments:
        engine: the Engine; it remembers which ways are ruled out.
        store: the Store that has the image's config and layers.
        image: an app.Image; its first variant is loaded.
        tag: the tag that it gets in dockerd, ``repository:tag``.
        notify: called with a line of text whenever the way is another than the last time.

    Returns the way: "direct", "linked" or "sent". Raises CorruptError or NotFoundError naming the
    blob for damage in the store, EngineError for everything else that goes wrong.
    """
    document = image.variants[0].document
    item = {
        "Config": _hex(document.config), "RepoTags": [tag],
        "RepoDigests": [names.digest_of(image.ref)],
        "Layers": [_hex(layer) for layer in document.layers],
    }
    if DIRECT not in engine.ruled_out and _direct(engine, store, item, document):
        way = DIRECT
    else:
        way = _archive(engine, store, item, image.variants[0])
        # Only now: it was not the image that dockerd refused.
        engine.ruled_out.add(DIRECT)
    if engine.load_way != way:
        notify(NOTES[way])
        engine.load_way = way
    return way


def foresee(engine, store):
    """Return the way that a dockerd is going to take for images of a store, without loading anything.

    Where that cannot be known, it is the one that takes the most space. Raises EngineError.
    """
    if engine.load_way is not None:
        return engine.load_way
    if DIRECT not in engine.ruled_out and _takes_directories(engine, store):
        return DIRECT
    temporary = os.path.join(engine.data_root(), "tmp")
    if LINKED not in engine.ruled_out and os.access(temporary, os.W_OK):
        with contextlib.suppress(OSError):
            if os.stat(temporary).st_dev == os.stat(store.blobs).st_dev:
                return LINKED
    return SENT


def _takes_directories(engine, store):
    """Ask for an image that there is not: what dockerd misses tells where it looked."""
    if not store.blobs.is_dir():
        return False
    nothing = "0" * 64
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{nothing}"]}}).encode()
    item = {"Config": "config", "RepoTags": None, "Layers": [nothing], "BlobsDir": os.path.realpath(store.blobs)}
    try:
        engine.load([item], [("config", len(config), [config])])
    except LoadRefusedError as err:
        return nothing in str(err) and IMPORT_PREFIX not in str(err)
    return False


def _hex(descriptor):
    return descriptor.digest.partition(":")[2]


def _file(store, descriptor):
    return _hex(descriptor), descriptor.size, store.chunks(descriptor.digest, descriptor.size)


def _direct(engine, store, item, document):
    """Have dockerd read the store; return False when it refuses, for whatever is not the blobs' fault."""
    blobs = os.path.realpath(store.blobs)
    try:
        engine.load([{**item, "BlobsDir": blobs}], [_file(store, document.config)])
    except LoadRefusedError as err:
        _find_damage(store, _named_in(err, document.layers))
        if "no space left" in str(err):
            raise
        return False
    return True


def _named_in(err, layers):
    """Return the layers that dockerd's refusal names, none when it looked for them in what it was sent."""
    text = str(err)
    if IMPORT_PREFIX in text:
        return []
    named = set(re.findall("[0-9a-f]{64}", text))
    return [layer for layer in layers if _hex(layer) in named]


def _find_damage(store, descriptors):
    """Read blobs that dockerd may have refused for what they are; raises what is wrong with the first bad one."""
    for descriptor in descriptors:
        for _chunk in store.chunks(descriptor.digest, descriptor.size):
            pass


def _archive(engine, store, item, variant):
    """Load by an archive in which layers are replaced by links where that is possible; return the way."""
    try:
        return _stream(engine, store, item, variant, LACKING not in engine.ruled_out)
    except _NotEnoughError:
        engine.ruled_out.add(LACKING)
        return _stream(engine, store, item, variant, False)


class _NotEnoughError(Exception):
    """dockerd did not load an archive that left layers out."""


def _stream(engine, store, item, variant, leave_out):
    document = variant.document
    linked, left_out, files = [], set(), dict.fromkeys((document.config, *document.layers))

    def content():
        remaining = list(files)
        if LINKED not in engine.ruled_out:
            # The first name in the archive is how its directory is told from those of others.
            marker = f".composeapps-{os.urandom(16).hex()}"
            yield marker, 0, ()
            linked.extend(_link_blobs(engine, store, marker, remaining[1:]))
        if leave_out and len(linked) < len(remaining) - 1:
            left_out.update(set(document.layers) - set(document.layers[_count_present(engine, variant):]) - set(linked))
        for blob in remaining:
            if blob not in linked and blob not in left_out:
                yield _file(store, blob)

    try:
        engine.load([item], content())
    except LoadRefusedError as err:
        if left_out:
            raise _NotEnoughError from err
        _find_damage(store, linked)
        raise
    return LINKED if linked else SENT


def _count_present(engine, variant):
    """Return how many of an image's layers, from the lowest, dockerd has in the same order in another image."""
    wanted, most = list(variant.config.diff_ids), 0
    for listed in engine.images():
        layers = ((engine.image(listed["Id"]) or {}).get("RootFS") or {}).get("Layers") or []
        pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(wanted, layers, strict=False))
        most = max(most, sum(1 for _pair in pairs))
    return most


def _link_blobs(engine, store, marker, blobs):
    """Put links to the blobs into the directory that has ``marker``; return those that have one now."""
    linked = []
    directory = _import_directory(os.path.join(engine.data_root(), "tmp"), marker)
    if directory is None:
        engine.ruled_out.add(LINKED)
        return linked
    try:
        for blob in blobs:
            path = store.blob_path(blob.digest)
            # What is not a plain file of the right size is read, which says what is wrong with it.
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_size == blob.size:
                    os.link(path, _hex(blob), dst_dir_fd=directory, follow_symlinks=False)
                    linked.append(blob)
    except OSError:
        # Another file system, a read-only one, or one that has no hard links.
        engine.ruled_out.add(LINKED)
    finally:
        os.close(directory)
    return linked


def _import_directory(temporary, marker):
    """Return a descriptor of the directory below ``temporary`` in which dockerd made ``marker``, or None.

    Nothing announces it, so it is looked for until it is there: dockerd needs a moment for it.
    """
    deadline = time.monotonic() + IMPORT_TIMEOUT
    while time.monotonic() < deadline:
        try:
            names = [name for name in os.listdir(temporary) if name.startswith(IMPORT_PREFIX)]
        except OSError:
            return None
        for name in names:
            with contextlib.suppress(OSError):
                directory = os.open(
                    os.path.join(temporary, name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.stat(marker, dir_fd=directory, follow_symlinks=False)
                    return directory
                except OSError:
                    os.close(directory)
        time.sleep(0.005)
    return None
