# SPDX-License-Identifier: MIT
"""The images and apps that a recording loads: small, varied by a seed, and able to check themselves.

Every image shares a base (busybox) and a second layer with the others, has layers of its own with
many small and a few larger files, and what else a layer can hold: directories, links, deletions.
Its command compares each of its files with the sums that its last layer carries.
"""

import hashlib
import io
import json
import random
import tarfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import hostsetup
from composeapps.oci.platforms import host_platform
from composeapps.oci.reference import parse_pinned
from composeapps.store.preload import build_store, copy_app
from composeapps.store.store import Store
from support import apps, images

HOST = "hub.demo.test"
SUMS = "etc/sums"
BUSYBOX = "bin/busybox"
SCRIPT = f"/{BUSYBOX} sha256sum -c -s /{SUMS} && /{BUSYBOX} sha256sum /{SUMS}"
COMMAND = [f"/{BUSYBOX}", "sh", "-c", SCRIPT]
_LINES = ("network_mode: none",)


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image: its pinned reference, ID in dockerd, layers, and what it says when it is whole."""

    reference: str
    image_id: str
    diff_ids: list
    says: str


@dataclass(frozen=True)
class World:
    """All that one recording loads.

    ``apps`` maps the names of apps to their pinned references; ``volumes`` maps volumes to
    {path: sha256 in hex} of what was synced into them before the recording began, ``user_files`` those of a
    workload's own choice.
    """

    images: list = field(default_factory=list)
    apps: dict = field(default_factory=dict)
    volumes: dict = field(default_factory=dict)
    user_files: dict = field(default_factory=dict)

    def dump(self):
        """Return it as what JSON can hold."""
        return asdict(self)

    @classmethod
    def load(cls, value):
        """Return the World that ``dump`` gave."""
        facts = [ImageFacts(**each) for each in value["images"]]
        return cls(facts, value["apps"], value["volumes"], value["user_files"])


class _Layer:
    """A layer under construction: a tar, and what it leaves of the files below."""

    def __init__(self, below):
        self.files = dict(below)
        self._out = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._out, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - see bytes()

    def add(self, path, data=b"", mode=0o644, kind=tarfile.REGTYPE, link="", owner=0, headers=None):
        info = tarfile.TarInfo(path)
        info.type, info.size, info.mode, info.linkname = kind, len(data), mode, link
        info.uid = info.gid = owner
        info.pax_headers = headers or {}
        self._tar.addfile(info, io.BytesIO(data))
        if kind == tarfile.REGTYPE:
            self.files[path] = hashlib.sha256(data).hexdigest()
        elif kind == tarfile.LNKTYPE:
            self.files[path] = self.files[link]

    def delete(self, path):
        directory, _, name = path.rpartition("/")
        self._tar.addfile(tarfile.TarInfo(f"{directory}/.wh.{name}"))
        del self.files[path]

    def bytes(self):
        self._tar.close()
        return self._out.getvalue()


def _fill(layer, draw, directory, small, large):
    """Put files of many sizes into ``directory``: about 4 KB each, and ``large`` of up to a megabyte."""
    layer.add(directory, mode=0o755, kind=tarfile.DIRTYPE)
    for number in range(small):
        size = draw.choice((0, 1, 80, 700, 3000, 4096, 5000, 9000))
        data = draw.randbytes(size) if number % 2 else (b"%d line of text\n" % number) * (size // 16)
        layer.add(f"{directory}/file{number}", data, mode=draw.choice((0o644, 0o600, 0o755)),
                  owner=draw.choice((0, 0, 1000)))
    for number in range(large):
        layer.add(f"{directory}/large{number}", draw.randbytes(draw.randrange(100_000, 1_000_000)))
    layer.add(f"{directory}/again", kind=tarfile.LNKTYPE, link=f"{directory}/file2")
    layer.add(f"{directory}/name", kind=tarfile.SYMTYPE, link="file1")
    layer.add(f"{directory}/empty", mode=0o1777, kind=tarfile.DIRTYPE)
    layer.add(f"{directory}/tagged", b"x" * 50, headers={"SCHILY.xattr.user.seed": "crash"})


def make_image(draw, base, name, layers, small, large):
    """Return an Image of support.images with ``layers`` layers of its own on the layers of ``base``."""
    tars, files = list(base[0]), dict(base[1])
    for number in range(layers):
        layer = _Layer(files)
        _fill(layer, draw, f"srv/{name}/{number}", small, large)
        if number:
            layer.delete(f"srv/{name}/{number - 1}/file3")
        if number == layers - 1:
            text = "".join(f"{digest}  {path}\n" for path, digest in sorted(layer.files.items()))
            layer.add(SUMS, text.encode())
        files = layer.files
        tars.append(layer.bytes())
    image = images.make_image(layers=tars, platform=str(host_platform()), config={"Cmd": COMMAND})
    return image, f"{files[SUMS]}  /{SUMS}"


def make_base(draw):
    """Return the layers that all images share: (tars, {path: sha256 in hex})."""
    first = _Layer({})
    first.add(BUSYBOX, Path(hostsetup.TOOLS, "bin", "busybox").read_bytes(), mode=0o755)
    first.add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    second = _Layer(first.files)
    _fill(second, draw, "usr/share/common", 20, 1)
    return [first.bytes(), second.bytes()], second.files


def build(directory, seed, count=3, small=25, large=1, versions=1, image_each=False, services=(), parts=4):
    """Make ``count`` apps of one image each in a new store ``directory``; return their World.

    Further ``versions`` of an app have another bundle, and with ``image_each`` another image; the World knows
    them as "app0@2" and so on, its ``images`` are in the order of the apps' names. ``services`` are the lines of
    each version's service besides its image, where they are not those of all; ``parts`` is how many files of a bundle
    change with its version.
    """
    draw, store = random.Random(f"contents {seed}"), Store(directory)
    base, facts, made = make_base(draw), [], {}
    for number in range(count):
        name = f"app{number}"
        for version in range(1, versions + 1):
            if version == 1 or image_each:
                image, says = make_image(draw, base, name, draw.randrange(1, 4), small, large)
                reference = f"{HOST}/crash/{name}-image@{image.digest}"
                config = image.document["config"]["digest"]
                diff_ids = json.loads(image.blobs[config])["rootfs"]["diff_ids"]
                facts.append(ImageFacts(reference, config, diff_ids, says))
            key = name if version == 1 else f"{name}@{version}"
            lines = services[version - 1] if services else _LINES
            made[key] = add_app(store, name, reference, image, _bundle_files(draw, version, parts), lines)
    return World(facts, made, {})


def _bundle_files(draw, version, parts):
    """Return {path: text} of a bundle: some files change with the version, some come and go."""
    files = {f"conf/part{number}.txt": draw.randbytes(draw.randrange(1, 6000)).hex() for number in range(parts)}
    return {**files, "same.txt": "the same in each version\n", f"only-in-{version}.txt": f"version {version}\n"}


def add_app(store, name, reference, image, files, lines=_LINES):
    """Add an app with one service to a Store, with all its blobs.

    Arguments:
        store: the Store.
        name: the app's.
        reference, image: the service's pinned reference, and its support.images.Image.
        files: {path: text} of the bundle besides the compose file.
        lines: lines of the service in the compose file.

    Returns the app's pinned reference.
    """
    compose = apps.compose_text({"main": reference}) + "".join(f"    {line}\n" for line in lines)
    app = apps.make_app(compose, files, [image])
    store.blobs.mkdir(parents=True, exist_ok=True)
    documents = (b"{}", app.manifest, app.bundle, app.bundle_index, app.layers_meta, image.content)
    for data in (*documents, *image.blobs.values()):
        (store.blobs / images.sha256(data).partition(":")[2]).write_bytes(data)
    uri = f"{HOST}/crash/{name}@{app.digest}"
    build_store(store.root, uri, [reference], str(host_platform()))
    return uri


def fill_store(source, target, names=None):
    """Copy apps of the store ``source`` to the store ``target``, durably."""
    source, target = Store(source), Store(target)
    for ref in source.list_apps():
        if names is None or ref.app_name in names:
            copy_app(source, target, ref)


def app_reference(world, name):
    """Return the composeapps Reference of one of the World's apps."""
    return parse_pinned(world.apps[name])
