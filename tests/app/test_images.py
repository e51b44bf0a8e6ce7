# SPDX-License-Identifier: MIT
"""The images of an app that is published: platforms, indexes that lack some, what dockerd would not run; no network."""

import gzip
import json

import pytest

from composeapps.app import images, layersmeta, measured, measuring
from composeapps.app.tree import load_image
from composeapps.errors import CorruptError, NotFoundError, RegistryError, UsageError
from composeapps.oci.digests import sha256
from composeapps.oci.documents import Descriptor, parse_document
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse
from support.images import LAYER, descriptor, dump, make_image, make_index, tar

HUB = "hub.demo.test/f"


class Registry:
    """A registry in memory, behind the interface of a RegistryClient and of a RegistrySource."""

    def __init__(self):
        self.documents, self.blobs, self.tags, self.read = {}, {}, {}, []

    def add(self, name, image):
        self.documents.update({d: data for d, (_, data) in image.manifests.items()})
        self.documents[image.digest], self.tags[name] = image.content, image.digest
        self.blobs.update(image.blobs)
        return parse(f"{HUB}/{name}@{image.digest}")

    def document(self, ref, digest):
        self.read.append(digest)
        if digest not in self.documents:
            raise NotFoundError(f"{digest} is not there")
        return self.documents[digest]

    def resolve(self, ref):
        return ref.pinned(self.tags[ref.path.partition("/")[2]])

    def blob(self, ref, digest, size):
        self.read.append(digest)
        data = self.blobs[digest]
        return data if size < 3000 and data[:1] == b"{" else iter([data[:9], data[9:]])

    def exists(self, ref, kind, digest):
        return digest in self.blobs

    def twin(self):
        return self

    def close(self):
        pass

    abort = close


@pytest.fixture
def hub():
    return Registry()


def choose(hub, *refs, platforms=()):
    said = []
    found, common = images.choose(hub, hub, refs, [Platform.parse(text) for text in platforms], said.append)
    return found, [str(platform) for platform in common], said


def index(*platforms, **changes):
    return make_index(*(make_image({"p": platform}, platform, **changes) for platform in platforms))


@pytest.mark.parametrize(("first", "second", "expected"), [
    ("linux/amd64 windows/amd64", "linux/amd64 windows/amd64", "linux/amd64"),
    ("linux/amd64 linux/amd64/v3", "linux/amd64", "linux/amd64 linux/amd64/v3"),
    ("linux/arm64", "linux/arm/v7", "linux/arm64"),
    ("linux/arm/v6", "linux/arm/v7 linux/arm/v5", "linux/arm/v6 linux/arm/v7"),
    ("linux/amd64 unknown/unknown", "linux/amd64 unknown/unknown", "linux/amd64"),
    ("linux/arm64/v8", "linux/arm64", "linux/arm64"),
    ("linux/386", "linux/amd64 linux/386", "linux/386 linux/amd64"),
])
def test_the_platforms_that_images_have_in_common(hub, first, second, expected):
    refs = [hub.add("a", index(*first.split())), hub.add("b", index(*second.split()))]
    assert choose(hub, *refs)[1] == expected.split()


def test_what_runs_nowhere_in_common_is_neither_read_nor_kept(hub):
    ref = hub.add("a", made := index("linux/amd64", "windows/amd64", "linux/riscv64"))
    other = hub.add("b", index("linux/amd64"))
    found, _, _ = choose(hub, ref, other)
    assert [str(v.platform) for v in found[str(ref)].variants] == ["linux/amd64"]
    windows = parse_document(made.content, "it").manifests[1].digest
    assert windows not in hub.read


def test_no_platform_in_common_names_those_of_each(hub):
    refs = [hub.add("a", index("linux/amd64")), hub.add("b", index("windows/amd64"))]
    with pytest.raises(UsageError, match="no platform in common.*a@sha256:[0-9a-f]+: linux/amd64; .*: none for Linux"):
        choose(hub, *refs)


def test_wanted_platforms(hub):
    ref = hub.add("a", index("linux/amd64", "linux/arm64", "linux/arm/v6"))
    found, common, _ = choose(hub, ref, platforms=["linux/arm/v7", "linux/amd64"])
    assert common == ["linux/arm/v7", "linux/amd64"]
    assert [str(v.platform) for v in found[str(ref)].variants] == ["linux/arm/v6", "linux/amd64"]
    with pytest.raises(NotFoundError, match="has no image for linux/s390x; it has: linux/amd64, linux/arm64"):
        choose(hub, ref, platforms=["linux/s390x"])


def test_an_index_that_names_what_is_not_there(hub):
    ref = hub.add("a", made := index("linux/amd64", "linux/arm64"))
    gone = parse_document(made.content, "it").manifests[1].digest
    del hub.documents[gone]
    found, common, said = choose(hub, ref)
    assert common == ["linux/amd64"] and "lacks the image for linux/arm64" in said[0]
    with pytest.raises(NotFoundError):
        choose(hub, ref, platforms=["linux/arm64"])


def test_where_the_best_image_is_not_there_the_next_one_is_taken(hub):
    ref = hub.add("a", made := index("linux/amd64", "linux/amd64/v2", "linux/amd64/v3"))
    digests = [m.digest for m in parse_document(made.content, "it").manifests]
    machine = [Platform.parse("linux/amd64/v4")]
    for number in (2, 1, 0):
        image = load_image(hub, ref, machine, configs=False)
        assert [v.descriptor.digest for v in image.variants] == [digests[number]]
        del hub.documents[digests[number]]
    with pytest.raises(NotFoundError, match=digests[2]):
        load_image(hub, ref, machine, configs=False)


def test_an_index_that_is_wrong_about_a_size(hub):
    made = index("linux/amd64")
    made.content = made.content.replace(b'"size":', b'"size":1')
    ref = hub.add("a", made)
    with pytest.raises(CorruptError, match="that the index names"):
        choose(hub, ref)


def changed(image, **changes):
    image.content = dump({**image.document, **changes})
    return image


def with_layers(*layers):
    image = make_image()
    return changed(image, layers=list(layers))


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.mark.parametrize(("image", "says"), [
    (lambda: changed(make_image(), config={**descriptor("application/vnd.cncf.helm.config.v1+json", b"{}")}),
     "no container image but an artifact .application/vnd.cncf.helm"),
    (lambda: with_layers(descriptor("application/vnd.in-toto+json", b"{}")), "does not unpack layer sha256:.*in-toto"),
    (lambda: with_layers(descriptor(LAYER + "+encrypted", b"{}")), "does not unpack layer"),
    (lambda: with_layers({**descriptor(FOREIGN, b"elsewhere"), "urls": ["https://cdn.test/\x1b[2J"]}),
     r"is not in the registry but at 'https://cdn.test/\\x1b\[2J', where devices do not fetch: push"),
    (lambda: with_layers(descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", b"x")), "push the"),
    (lambda: with_layers(*[descriptor(LAYER, b"x")] * 126), "126 layers, and dockerd stacks no more than 125"),
    (lambda: make_image(platform="unknown/unknown"), "no platform in common"),
])
def test_what_dockerd_would_not_run(hub, image, says):
    made = image()
    hub.blobs[sha256(b"{}")] = dump({"os": "linux", "architecture": "amd64"})
    with pytest.raises(UsageError, match=says) as caught:
        choose(hub, hub.add("a", made))
    assert str(caught.value).isprintable()


def test_a_foreign_layer_that_the_registry_has(hub):
    data = gzip.compress(tar({"a": "b"}))
    made = with_layers({**descriptor(FOREIGN, data), "urls": ["https://cdn.test/x"]})
    made.blobs[sha256(data)] = data
    assert choose(hub, hub.add("a", made))[1] == ["linux/amd64"]


def test_layers_of_zstd_are_named(hub):
    made = with_layers(descriptor("application/vnd.oci.image.layer.v1.tar+zstd", b"x"))
    assert "zstd, which no dockerd before 23 loads" in choose(hub, hub.add("a", made))[2][0]


# Pinned images.

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize("data", [
    json.dumps([f"{HUB}/a@{DIGEST}", f"{HUB}/b:1@{DIGEST}"]),
    json.dumps({"x": f"{HUB}/a@{DIGEST}", "y": f"{HUB}/b:1@{DIGEST}"}),
    f"# built today\n\n{HUB}/a@{DIGEST}\n{HUB}/b:1@{DIGEST}\n", f"{HUB}/a@{DIGEST},{HUB}/b:1@{DIGEST}",
])
def test_lists_of_pinned_images(data):
    assert images.pinned_list(data.encode(), "list") == {f"{HUB}/a": DIGEST, f"{HUB}/b:1": DIGEST}


@pytest.mark.parametrize(("data", "says"), [
    (b"hub.demo.test/f/a:1", "has no digest"), (b"[3]", "'3' is not a pinned image"),
    (b"\xff", "no list of pinned images"),
    (b'["a"', "no list of pinned images"), (b'{"a":1,"a":2}', "no list of pinned images"),
    (f"{HUB}/a@{DIGEST}\n{HUB}/a@sha256:{'b' * 64}".encode(), "two digests for hub.demo.test/f/a"),
    (b"x" * 2**21, "more than"),
])
def test_lists_that_are_none(data, says):
    with pytest.raises(UsageError, match=f"list.*{says}"):
        images.pinned_list(data, "list")


def test_pinned_images_go_before_the_registry(hub):
    hub.tags["a"] = hub.tags["b"] = hub.tags["c"] = sha256(b"of the registry")
    resolve = images.resolver(hub, {f"{HUB}/a": DIGEST, f"{HUB}/b:1": DIGEST})
    assert [resolve(parse(f"{HUB}/{name}")) for name in ("a", "a:2", "b:1", "b", "c")] == [
        DIGEST, sha256(b"of the registry"), DIGEST, *[sha256(b"of the registry")] * 2]
    assert resolve(parse(f"{HUB}/z@{DIGEST}")) == DIGEST


# Measuring.

def layer_of(hub, data):
    hub.blobs[sha256(data)] = data
    return Descriptor(sha256(data), len(data), LAYER)


def test_layers_are_measured_once_on_a_machine(hub, tmp_path):
    layers = {layer_of(hub, gzip.compress(tar({"f": b"x" * n}), mtime=0)): parse(f"{HUB}/a") for n in range(1, 9)}
    sizes, reasons = measuring.measure_all(layers, hub, measured.Measured(tmp_path))
    assert sorted(sizes.values()) == [(n, 4096) for n in range(1, 9)] and not reasons
    hub.read.clear()
    assert measuring.measure_all(layers, hub, measured.Measured(tmp_path)) == (sizes, {})
    assert hub.read == []


def test_a_layer_that_cannot_be_measured_is_named_and_left_to_be_estimated(hub, tmp_path, monkeypatch):
    def none():
        raise measuring.layers.Unmeasurable("it is compressed with zstd")

    monkeypatch.setattr(measuring.layers, "_COMPRESSIONS", ((b"\x28\xb5\x2f\xfd", none),))
    odd, plain = layer_of(hub, b"\x28\xb5\x2f\xfd" + bytes(3000)), layer_of(hub, tar({"a": b"1"}))
    said = []
    sizes, reasons = measuring.measure_all({odd: parse(f"{HUB}/a"), plain: parse(f"{HUB}/a")}, hub,
                                           measured.Measured(tmp_path), said.append)
    assert list(sizes) == [plain.digest] and list(reasons) == [odd.digest] and "devices estimate" in said[-1]
    meta = layersmeta.write({"amd64": [odd, plain]}, sizes)
    assert json.loads(meta)["amd64"]["unmeasured"] == [odd.digest]
    assert layersmeta.usages(meta) == {plain.digest: 4096} and layersmeta.architectures(meta) == {"amd64"}


def test_what_ends_one_ends_all(hub, tmp_path):
    layers = {layer_of(hub, tar({"f": b"x" * n})): parse(f"{HUB}/a") for n in range(1, 9)}
    broken = list(layers)[3]

    def blob(ref, digest, size, answer=hub.blob):
        if digest == broken.digest:
            raise RegistryError("gone")
        return answer(ref, digest, size)

    hub.blob = blob
    with pytest.raises(RegistryError, match="gone"):
        measuring.measure_all(layers, hub, measured.Measured(tmp_path))


def test_the_cache_knows_rot_and_takes_nothing_for_another(tmp_path):
    cache, layer = measured.Measured(tmp_path / "deep" / "er"), Descriptor(DIGEST, 100)
    assert cache.get(layer) is None
    cache.put(layer, 5, 4096)
    assert cache.get(layer) == (5, 4096) and cache.get(layer._replace(size=101)) is None
    path = next((tmp_path / "deep" / "er").iterdir())
    whole = path.read_bytes()
    for rotten in (b"", whole[:40], whole.replace(b" 5 ", b" 6 "), b"\xff" * 200, whole * 2, bytes(5000)):
        path.write_bytes(rotten)
        assert cache.get(layer) is None
    other = Descriptor("sha256:" + "b" * 64, 100)
    path.with_name("b" * 64).write_bytes(whole)
    assert cache.get(other) is None


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "MOST", 10)
    for number in range(11):
        measured.Measured(tmp_path).put(Descriptor(sha256(b"%d" % number), 1), 1, 1)
    assert len(list(tmp_path.iterdir())) == 11
    measured.Measured(tmp_path).put(Descriptor(DIGEST, 1), 1, 1)
    assert len(list(tmp_path.iterdir())) < 8


def test_where_the_cache_is(tmp_path):
    assert measured.directory({"XDG_CACHE_HOME": "/c", "HOME": "/h"}).parts[:3] == ("/", "c", "composeapps")
    home = str(tmp_path)
    assert measured.directory({"XDG_CACHE_HOME": "odd", "HOME": home}) == tmp_path / ".cache/composeapps/layers"
    assert measured.directory({"HOME": "/nonexistent"}) is measured.directory({}) is None
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = measured.Measured(blocked / "x")
    cache.put(Descriptor(DIGEST, 1), 1, 1)
    assert cache.get(Descriptor(DIGEST, 1)) is None


# Layers metadata.

def test_layers_metadata_from_a_file():
    layer = Descriptor(DIGEST, 77)
    entry = {"size": 5, "usage": 8192}
    data = json.dumps({"arm64": {"fs_block_size": 1024, "layers": {DIGEST: entry, "sha256:x": {}}}, "mips": 3}).encode()
    meta = layersmeta.write({"arm64": [layer]}, *layersmeta.given(data, {"arm64": [layer]}, "meta.json"))
    assert json.loads(meta) == {"arm64": {"fs_block_size": 1024, "layers": {DIGEST: {**entry, "archive_size": 77}}}}
    for needed, says in (({"amd64": [layer]}, "nothing about the architecture amd64"),
                         ({"arm64": [Descriptor("sha256:" + "b" * 64, 1)]}, "does not have the layer sha256:bbb"),
                         ({"mips": [layer]}, "nothing about the architecture mips")):
        with pytest.raises(UsageError, match=f"meta.json (has )?{says}"):
            layersmeta.given(data, needed, "meta.json")
    with pytest.raises(UsageError, match="meta.json is not JSON.*layers metadata is wanted"):
        layersmeta.given(b"x", {}, "meta.json")


@pytest.mark.parametrize("value", [
    None, [], {"a": 1}, {"a": []}, {"a": {"layers": []}}, {"a": {"layers": {DIGEST: 3}}},
    {"a": {"layers": {DIGEST: {"usage": "4096"}}}}, {"a": {"layers": {DIGEST: {"usage": -1}}}},
    {"a": {"layers": {DIGEST: {"usage": 2**70}}}}, {"a": {"layers": {DIGEST: {"usage": 1.5}}}},
    {"a": {"layers": {DIGEST: {"usage": True}}}},
])
def test_odd_layers_metadata_says_nothing(value):
    assert layersmeta.usages(json.dumps(value).encode()) == {}
    layersmeta.architectures(json.dumps(value).encode())
