# SPDX-License-Identifier: MIT
"""A store that was built for one machine on another one that runs the same images. No registry, no dockerd."""

import pytest

from composeapps.app.tree import StoreSource, load_app
from composeapps.errors import NotFoundError
from composeapps.oci.digests import sha256
from composeapps.oci.documents import parse_document
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse_pinned
from composeapps.pull.pull import survey
from composeapps.store.preload import build_store, copy_app
from composeapps.store.store import Store
from support.apps import compose_text, make_app
from support.images import make_image, make_index
from support.pulls import no_network


def _index(*platforms):
    return make_index(*(make_image({"p": platform}, platform) for platform in platforms))


def _build(root, platform, **indexes):
    """Build a store of an app as a recipe of one platform does; return (Store, the app's Reference)."""
    images = {name: f"hub.demo.test/f/{name}@{index.digest}" for name, index in indexes.items()}
    app, store = make_app(compose_text(images), {}, indexes.values()), Store(root)
    blobs = [app.manifest, app.bundle, app.bundle_index, app.layers_meta]
    for index in indexes.values():
        chosen = parse_document(index.content, "it").select(Platform.parse(platform), "it").digest
        document = parse_document(index.manifests[chosen][1], "it")
        parts = [document.config.digest, *(layer.digest for layer in document.layers)]
        blobs += [index.content, document.data, *(index.blobs[digest] for digest in parts)]
    for data in blobs:
        store.add_blob(sha256(data), [data])
    ref = parse_pinned(f"hub.demo.test/f/shop@{app.digest}")
    build_store(root, str(ref), sorted(images.values()), platform)
    return store, ref


@pytest.mark.parametrize(("built", "machine", "there"), [
    ("linux/amd64", "linux/amd64/v4", "linux/amd64 linux/amd64/v3"),
    ("linux/arm/v6", "linux/arm/v7", "linux/arm/v6 linux/arm/v7"),
    ("linux/386", "linux/amd64", "linux/386 linux/amd64"),
])
def test_it_is_complete_for_a_better_machine_without_a_network(tmp_path, built, machine, there):
    store, ref = _build(tmp_path, built, web=_index(*there.split()))
    found = survey(ref, store, no_network, Platform.parse(machine))
    assert found.missing == ()
    assert [str(v.platform) for image in found.app.images.values() for v in image.variants] == [built]


def test_it_is_not_for_a_lesser_one(tmp_path):
    store, ref = _build(tmp_path, "linux/amd64/v3", web=_index("linux/amd64", "linux/amd64/v3"))
    with pytest.raises(NotFoundError):
        load_app(StoreSource(store), ref, [Platform.parse("linux/amd64")])


def test_images_for_several_machines_are_copied_as_they_are_there(tmp_path):
    store, ref = _build(tmp_path / "one", "linux/arm64", web=_index("linux/arm64", "linux/amd64"),
                        db=_index("linux/arm/v7", "linux/amd64"))
    target = Store(tmp_path / "two")
    copy_app(store, target, ref)
    app = load_app(StoreSource(target), ref, [Platform.parse("linux/arm64")])
    assert sorted(str(v.platform) for image in app.images.values() for v in image.variants) == [
        "linux/arm/v7", "linux/arm64"]
    assert all(store.size_of(b.descriptor.digest) == target.size_of(b.descriptor.digest) for b in app.blobs())
