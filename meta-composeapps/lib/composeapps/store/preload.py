# SPDX-License-Identifier: MIT
"""From store to store: the apps' recipes make one each, an image merges them, a device restores from its seed.

Stdlib-only, for BitBake's tasks. All functions can be run again over what an interrupted run left.
"""

import json
import shutil
from pathlib import Path

from composeapps import durable
from composeapps.app.tree import PRESENT, StoreSource, load_app
from composeapps.errors import CorruptError, UsageError
from composeapps.oci.documents import dump_json
from composeapps.oci.platforms import Platform
from composeapps.oci.reference import parse_pinned
from composeapps.store.store import Store


def build_store(root, uri, images, platform):
    """Turn a directory of fetched blobs into a store that holds one app.

    Arguments:
        root: the store; ``blobs/sha256`` in it holds the app's blobs already.
        uri: the app's pinned reference.
        images: the pinned references of its services' images.
        platform: the platform of the target, "linux/arm64" for example.

    Returns the App. Raises CorruptError or NotFoundError for a blob that is damaged or missing,
    and CorruptError when ``images`` are not those of the app's compose file.
    """
    store = Store(root)
    ref = parse_pinned(uri, what="app")
    pinned = [parse_pinned(image, what=f"image of app {ref.app_name}", version=False) for image in images]
    app = load_app(StoreSource(store), ref, [Platform.parse(platform)], pinned)
    _match_images(app, pinned)
    _verify(store, app)
    store.add_app(app)
    return app


def merge_store(sources, root, factory_file, seed=None):
    """Merge the stores of several apps into the store of an image.

    Arguments:
        sources: the apps' stores; each blob that they share is stored once.
        root: the image's store.
        factory_file: where the list of the preloaded apps goes,
            ``{"apps": {name: pinned reference}}``, and where all of them are of one signed Target
            ``"target": {"name", "version"}``.
        seed: a second store for the same apps, hard-linked with the first, or None.

    Returns that list. Raises CorruptError for a damaged blob, UsageError for two versions of an app.
    """
    target, second, apps = Store(root), Store(seed) if seed else None, {}
    for source in map(Store, sources):
        refs = source.list_apps()
        if not refs:
            raise CorruptError(f"{source.root} holds no app: build its recipe again")
        for ref in refs:
            if apps.setdefault(ref.app_name, str(ref)) != str(ref):
                raise UsageError(f"two versions of app {ref.app_name} are to be preloaded: "
                                 f"{apps[ref.app_name]} and {ref}; leave one out of COMPOSEAPPS_PRELOAD")
            copy_app(source, target, ref)
            if second:
                copy_app(target, second, ref, link=True)
    target.make_private()
    for store in filter(None, (target, second)):
        shutil.rmtree(store.ingest, ignore_errors=True)
    factory = {"apps": dict(sorted(apps.items())), **_target(sources)}
    durable.make_directories(Path(factory_file).parent)
    durable.write_file(factory_file, dump_json(factory) + b"\n")
    return factory


def _target(sources):
    """Return {"target": …} of what the recipes of apps told beside their stores, {} when that is not one Target."""
    found = set()
    for source in sources:
        try:
            told = json.loads(Path(f"{source}.json").read_text(encoding="utf-8"))
            found.add((str(told["target"]), int(told["target_version"])))
        except (OSError, ValueError, KeyError, TypeError):
            # A store that no recipe made.
            return {}
    name, version = next(iter(found), ("", 0))
    return {"target": {"name": name, "version": version}} if len(found) == 1 and name else {}


def copy_app(source, target, ref, link=False):
    """Copy an app: what its directory and manifests name, no other blob that lies in the source.

    Arguments:
        source, target: Stores.
        ref: the app's Reference, one of ``source.list_apps()``.
        link: whether the blobs of both may be the same files.

    A blob that is whole in the target stays as it is; every other one is verified while it is
    copied. The app appears in the target when all of it is there. Raises CorruptError,
    NotFoundError, StorageError.
    """
    directory = source.app_dir(ref)
    images = [
        parse_pinned(f"{path.parent.parent.relative_to(directory / 'images')}@sha256:{path.parent.name}")
        for path in sorted(directory.glob("images/**/index.json"))
    ]
    app = load_app(StoreSource(source), ref, PRESENT, images)
    for blob in app.blobs():
        digest, size = blob.descriptor.digest, blob.descriptor.size
        if blob.optional and source.size_of(digest) is None:
            continue
        if link:
            target.add_file(source.blob_path(digest), digest, size)
        else:
            target.add_blob(digest, source.chunks(digest, size), size)
    target.add_app(app)


def _match_images(app, pinned):
    """Check that the recipe's images are those of the bundle; a compose file in YAML is searched, not parsed."""
    named = {str(image) for image in pinned}
    try:
        services = json.loads(app.compose)["services"]
        found = {str(service.get("image") or "") for service in services.values()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        lines = (line.strip().partition(b"image:") for line in app.compose.splitlines())
        found = {rest.strip().strip(b"\"'").decode(errors="replace")
                 for head, colon, rest in lines if colon and not head}
    if found != named:
        odd = sorted(found ^ named)[0]
        raise CorruptError(f"app {app.ref}: the recipe and the compose file disagree about the image '{odd}': "
                           "run gen-recipes again")


def _verify(store, app):
    for blob in app.blobs():
        problem = store.verify(blob.descriptor.digest, blob.descriptor.size)
        if problem:
            raise CorruptError(f"app {app.ref}: {problem}")
