# SPDX-License-Identifier: MIT
"""Finding what is named by its digest: the same number of steps however many other apps the store has."""

import os
import shutil
import sys

import pytest

from composeapps.app.tree import StoreSource, load_app
from composeapps.oci.digests import sha256
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse_pinned
from composeapps.store.store import Store
from support.apps import compose_text, make_app
from support.images import make_image

PLATFORMS = [Platform("linux", "amd64")]
_events = []
_counting = []
sys.addaudithook(lambda event, _arguments: _events.append(event)
                 if _counting and event in ("open", "os.scandir", "os.listdir") else None)


def steps(action):
    """Return (what ``action`` returns, how many files and directories it opened)."""
    _events.clear()
    _counting.append(True)
    try:
        result = action()
    finally:
        _counting.clear()
    return result, len(_events)


def fill(store, count, image):
    """Put apps into a store; return their references."""
    refs = []
    for number in range(count):
        made = make_app(compose_text({"web": f"hub.demo.test/f/base@{image.digest}"}), {"number": str(number)})
        for data in (*image.blobs.values(), image.content, made.manifest, made.bundle, made.bundle_index,
                     made.layers_meta):
            store.add_blob(sha256(data), [data])
        ref = parse_pinned(f"hub.demo.test/f/app{number}@{made.digest}")
        store.add_app(load_app(StoreSource(store), ref, PLATFORMS))
        refs.append(ref)
    return refs


def as_skopeo_leaves_it(store, refs):
    """Have the manifests and bundles of apps in their own directories alone."""
    for ref in refs:
        directory = store.app_dir(ref)
        for path in (directory / "manifest.json", *directory.glob("*.tgz")):
            digest = ref.hex if path.name == "manifest.json" else path.stem
            shutil.copy(path, f"{path}.own")
            store.blob_path(f"sha256:{digest}").unlink(missing_ok=True)
            os.replace(f"{path}.own", path)


@pytest.fixture
def image():
    return make_image({"etc/name": "base"})


@pytest.mark.parametrize("skopeo", [False, True], ids=["blobs", "skopeo"])
def test_what_is_pinned_is_found_at_once(tmp_path, image, skopeo):
    counts = {}
    for number in (2, 8):
        store = Store(tmp_path / str(number))
        refs = fill(store, number, image)
        if skopeo:
            as_skopeo_leaves_it(store, refs)
        found, searched = steps(lambda store=store, refs=refs: store.find_app(str(refs[-1])))
        assert found == refs[-1]
        app, read = steps(lambda store=store, refs=refs: load_app(StoreSource(store), refs[-1], PLATFORMS))
        assert app.ref == refs[-1]
        counts[number] = searched, read
    assert counts[2] == counts[8]


def test_what_lies_with_another_app_is_found_all_the_same(tmp_path, image):
    store = Store(tmp_path)
    refs = fill(store, 3, image)
    as_skopeo_leaves_it(store, refs)
    with store.unverified(refs[1].digest) as stream:
        assert sha256(stream.read()) == refs[1].digest
    assert store.verify(refs[2].digest) is None


def test_a_reference_of_a_version_that_is_not_here_lists_what_is(tmp_path, image):
    store = Store(tmp_path)
    refs = fill(store, 2, image)
    other = str(refs[0]).replace(refs[0].hex, refs[1].hex)
    with pytest.raises(Exception, match="app0, app1"):
        store.find_app(other)
    (store.app_dir(refs[0]) / "uri").write_text(str(refs[1]))
    with pytest.raises(Exception, match="is not in the store"):
        store.find_app(str(refs[0]))
