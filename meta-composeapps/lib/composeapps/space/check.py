# SPDX-License-Identifier: MIT
"""Whether there is room for an app, counted before the first byte of it is fetched or loaded.

For each file system: what the store gets, what dockerd unpacks, the app's bundle, and what is there
only while the work goes on. dockerd's part is known from the app's layers-meta document; for an app without one
it is estimated, and called an estimate. The rule of the watermark is that of ``df``: a file
system is as full as what is used of it to what is used and what may be used by everybody, which
leaves out the blocks that the file system reserves for root.
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from composeapps.app.layersmeta import usages
from composeapps.engine import loading, look
from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError, SpaceError
from composeapps.oci.documents import parse_config
from composeapps.sizes import human_size
from composeapps.store.inventory import chains

BLOCK = 4096
# What a layer takes unpacked for each byte compressed, where nobody has measured it.
UNPACKED = 3
# dockerd's own files about a layer: its description, its tar-split, its directories.
LAYER_FILES = 16 * BLOCK
# The agent's and dockerd's small files: states, journals, containers.
SMALL_FILES = 64 * BLOCK

STORE, DOCKER, BUNDLE, TEMPORARY = "store", "dockerd", "bundle", "temporary"


class VolumeNeed(NamedTuple):
    """What one file system must take.

    ``path`` is where it is mounted; ``parts`` maps STORE, DOCKER, BUNDLE and TEMPORARY to bytes;
    ``total`` is its size in bytes without the reserve for root, ``used`` and ``free`` what is used of that and
    what is not; ``allowed`` what may be used in addition, by the watermark ``watermark`` (percent);
    ``estimated`` tells that layers were not measured when the app was published.
    """

    path: Path
    parts: dict
    total: int
    used: int
    free: int
    allowed: int
    watermark: int
    estimated: bool = False

    @property
    def needed(self):
        """All of it, in bytes."""
        return sum(self.parts.values())

    @property
    def enough(self):
        """Whether it fits. What leaves the file system no fuller than before only has to find room meanwhile."""
        lasting = self.parts[STORE] + self.parts[DOCKER]
        return self.needed <= (self.allowed if lasting else self.free)

    @property
    def full(self):
        """How full it is now, in percent."""
        return 100 * self.used / self.total if self.total else 100

    def dump(self):
        """Return this as JSON-ready data, sizes in bytes."""
        return {"path": str(self.path), "needed": self.needed, "parts": dict(self.parts), "total": self.total,
                "used": self.used, "free": self.free, "allowed": self.allowed, "watermark": self.watermark,
                "estimated": self.estimated, "enough": self.enough}


class Needs(list):
    """VolumeNeeds, and whom ``check`` asks what pruning would free."""

    def __init__(self, volumes, propose):
        super().__init__(volumes)
        self.propose = propose


class Wanted(NamedTuple):
    """An app, the Blobs of it that the store lacks, and documents of it that were read already."""

    app: object
    missing: tuple
    documents: dict


def needs(app, missing, store, engine, config, documents=None):
    """Count what one app needs.

    Arguments:
        app: an App for one platform.
        missing: the app.Blobs that the store lacks.
        store: the Store.
        engine: the Engine; None when nothing is to be installed.
        config: the Config.
        documents: {digest: bytes} of documents that the store may not have yet, the layers-meta above all.

    Returns a list of VolumeNeeds. Raises EngineError, StorageError.
    """
    return needs_of_all([Wanted(app, tuple(missing), documents or {})], store, engine, config)


def needs_of_all(wanted, store, engine, config):
    """Count what several apps need together; what they share counts once.

    Arguments:
        wanted: Wanteds. The other arguments, the result and the errors are those of ``needs``.
    """
    amounts = _Amounts(config)
    _count_store(wanted, store, amounts)
    if engine is not None:
        _count_docker(wanted, store, engine, amounts)
        for each in wanted:
            _count_bundle(each.app, store, config, amounts)
        amounts.add(config.state_dir, BUNDLE, SMALL_FILES)
    keep = {blob.descriptor.digest for each in wanted for blob in each.app.blobs()}
    return Needs(amounts.volumes(), lambda: _propose(store, config, engine, keep))


def volumes(paths, config):
    """Return a VolumeNeed, of nothing, for each file system that has some paths, of which all need not be there yet."""
    amounts = _Amounts(config)
    for path in paths:
        amounts.add(path, TEMPORARY, 0)
    return amounts.volumes()


def check(needs):
    """Raise SpaceError with the figures when a file system would not take what it must.

    Arguments:
        needs: what ``needs`` returned.
    """
    short = [need for need in needs if not need.enough]
    if not short:
        return
    report = needs.propose() if isinstance(needs, Needs) else None
    raise SpaceError("; ".join(_sentence(need) for need in short) + "; " + _proposal(short, report))


def _sentence(need):
    about = "about " if need.estimated else ""
    parts = ", ".join(f"{name} {human_size(size)}" for name, size in need.parts.items() if size)
    return (f"{need.path} needs {about}{human_size(need.needed)} ({parts}) and may take {human_size(need.allowed)}: "
            f"{human_size(need.used)} of {human_size(need.total)} are used ({need.full:.0f} %) and the watermark is "
            f"{need.watermark} %")


def _proposal(short, report):
    if report is None:
        return "free space, or raise storage_watermark"
    freed = {need.path: report.freed_on.get(_device(need.path), 0) for need in short}
    if not any(freed.values()):
        return "'composeapps prune' would free nothing there: free space, or raise storage_watermark"
    amounts = ", ".join(f"{human_size(size)} on {path}" for path, size in freed.items() if size)
    enough = all(need.needed <= need.allowed + freed[need.path] for need in short)
    return f"'composeapps prune' would free {amounts}" + ("" if enough else ", which is not enough")


def _propose(store, config, engine, keep):
    from composeapps.records.state import StateDirectory
    from composeapps.space import prune

    try:
        return prune.would_free(store, StateDirectory(config.state_dir), config, engine, keep)
    except (ComposeAppsError, OSError):
        return None


class _Amounts:
    """Bytes by file system and by what they are for."""

    def __init__(self, config):
        self._watermark = config.storage_watermark
        self._parts, self._places, self._estimated = {}, {}, set()

    def add(self, path, part, size, estimated=False):
        place = existing(path)
        device = os.stat(place).st_dev
        self._places.setdefault(device, place)
        parts = self._parts.setdefault(device, dict.fromkeys((STORE, DOCKER, BUNDLE, TEMPORARY), 0))
        parts[part] += size
        if estimated and size:
            self._estimated.add(device)

    def volumes(self):
        return [_volume(mount_point(self._places[device]), parts, self._watermark, device in self._estimated)
                for device, parts in self._parts.items()]


def _volume(path, parts, watermark, estimated):
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    allowed = max(0, min(free, (used + free) * watermark // 100 - used))
    return VolumeNeed(path, parts, used + free, used, free, allowed, watermark, estimated)


def existing(path):
    """Return ``path``, or the nearest directory above it that exists."""
    path = Path(os.path.realpath(path))
    while not path.is_dir():
        path = path.parent
    return path


def mount_point(path):
    """Return the directory at which the file system of the directory ``path`` begins."""
    path = Path(os.path.realpath(path))
    while path != path.parent and _device(path.parent) == _device(path):
        path = path.parent
    return path


def _device(path):
    return os.stat(path).st_dev


def _blocks(size):
    return -(-size // BLOCK) * BLOCK


def _count_store(wanted, store, amounts):
    sizes, directories = {}, 0
    for each in wanted:
        for blob in each.missing:
            sizes[blob.descriptor.digest] = blob.descriptor.size
        if not (store.app_dir(each.app.ref) / "uri").exists():
            # Two small files and their directories for each image, and the app's own.
            directories += BLOCK * (5 * len(each.app.images) + 5) + _blocks(len(each.app.compose))
    there = _begun(store)
    amounts.add(store.root, STORE, directories)
    for digest, size in sizes.items():
        # A damaged blob goes when the whole one takes its place.
        part = STORE if store.size_of(digest) is None else TEMPORARY
        amounts.add(store.root, part, max(0, _blocks(size) - there.get(digest.partition(":")[2], 0)))


def _begun(store):
    """Return {hex digits: bytes} of what is there already of blobs that are not complete."""
    begun = {}
    try:
        entries = list(os.scandir(store.ingest))
    except OSError:
        return begun
    for entry in entries:
        number = entry.name[:64]
        if len(number) == 64 and entry.is_file(follow_symlinks=False) and not entry.name.endswith(".tmp"):
            begun[number] = max(begun.get(number, 0), entry.stat(follow_symlinks=False).st_blocks * 512)
    return begun


def unpacked_size(layer, measured):
    """Return (bytes on dockerd's disk, whether that is an estimate) of one layer.

    Arguments:
        layer: its Descriptor.
        measured: {digest: bytes} from the layers-meta.
    """
    if layer.digest in measured:
        return measured[layer.digest] + LAYER_FILES, False
    packed = "gzip" in layer.media_type or "zstd" in layer.media_type or not layer.media_type
    return _blocks(layer.size * (UNPACKED if packed else 1)) + LAYER_FILES, True


class Chains:
    """The names (inventory.chains) of the layers that dockerd has.

    dockerd calls an image by the digest of its config, so the store tells of those that it has as well. The others,
    which nobody's app names, are asked for when a layer is in none of the store's.

    Arguments:
        engine: the Engine, or a look at it.
        store: the Store.
    """

    def __init__(self, engine, store):
        self._engine = look.at(engine)
        # What an image consists of stays as it is, and whether it is one of the store's: that was asked before.
        self._kept, foreign = self._engine.kept.setdefault("chains", ({}, set()))
        there = self._engine.image_ids()
        for identifier in there - self._kept.keys() - foreign:
            if contents := _contents(identifier, store):
                self._kept[identifier] = chains(contents)
            else:
                foreign.add(identifier)
        self._known = set().union(*map(self._kept.get, there & self._kept.keys()))
        self._foreign = there - self._kept.keys()

    def __contains__(self, name):
        while name not in self._known and self._foreign:
            identifier = self._foreign.pop()
            layers = ((self._engine.image(identifier) or {}).get("RootFS") or {}).get("Layers") or []
            self._kept[identifier] = chains(layers)
            self._known.update(self._kept[identifier])
        return name in self._known

    def add(self, name):
        """Count a layer in that dockerd is about to get."""
        self._known.add(name)


def _contents(identifier, store):
    """Return the digests of the contents of an image's layers, none for an image that the store does not have."""
    if store.size_of(identifier) is not None:
        with contextlib.suppress(NotFoundError, CorruptError):
            return parse_config(store.read(identifier), identifier).diff_ids
    return ()


def _count_docker(wanted, store, engine, amounts):
    root = engine.data_root()
    if not os.path.isdir(root):
        # Another machine's, or hidden from us: its disk cannot be judged from here.
        return
    known, total, estimated, copied = Chains(engine, store), 0, False, 0
    for each in wanted:
        measured = usages(_layers_meta(each, store))
        for image in each.app.images.values():
            variant = image.variants[0]
            layers = variant.document.layers
            lacking = [(name, layer) for name, layer in zip(chains(variant.config.diff_ids), layers, strict=False)
                       if name not in known]
            for name, layer in lacking:
                known.add(name)
                size, guessed = unpacked_size(layer, measured)
                total += size
                estimated = estimated or guessed
            sent = layers if loading.LACKING in engine.ruled_out else [layer for _name, layer in lacking]
            if lacking:
                copied = max(copied, sum(_blocks(layer.size) for layer in sent))
    amounts.add(root, DOCKER, total, estimated)
    if copied and loading.foresee(engine, store) == loading.SENT:
        # dockerd writes what comes through its socket down before it unpacks it, one image at a time.
        amounts.add(os.path.join(root, "tmp"), TEMPORARY, copied)


def _layers_meta(each, store):
    meta = each.app.layers_meta
    if meta is None:
        return None
    if meta.digest in each.documents:
        return each.documents[meta.digest]
    try:
        return store.read(meta.digest, meta.size)
    except ComposeAppsError:
        return None


def _count_bundle(app, store, config, amounts):
    """All new files are there before the first old one goes."""
    from composeapps.app import tree

    size = app.bundle.size * UNPACKED
    with contextlib.suppress(ComposeAppsError):
        size = sum(_blocks(member.size) or BLOCK for member in tree.whole(app, store).contents.index.values())
    amounts.add(config.compose_root, BUNDLE, size)
