# SPDX-License-Identifier: MIT
"""Stores as the field's own programs leave them on a device, byte by byte, without the product's code.

``composectl`` (v96): all blobs below ``blobs/sha256``, read-only but for the images' manifests; hard
links to the app's manifest and bundle; an ``index.json`` an image with the manifest of the device's
platform, with the addresses that it came from; no ``oci-layout``.

``skopeo`` (as aktualizr-lite calls it): the app's manifest and bundle lie in the app's directory alone,
an image's index is not kept, and its ``index.json`` is that of an OCI layout.
"""

import json
import os
from pathlib import Path

from support.apps import App
from support.images import descriptor, dump, sha256

COMPOSECTL, SKOPEO = "composectl", "skopeo"


def variants(image, platforms=("linux/amd64",)):
    """Return the (media type, manifest bytes) of an image for platforms, those of its index or itself."""
    if not image.manifests:
        return [(image.media_type, image.content)]
    wanted = [tuple(platform.split("/")) for platform in platforms]
    return [image.manifests[item["digest"]] for item in image.document["manifests"]
            if (item["platform"]["os"], item["platform"]["architecture"]) in wanted]


def without(app, bundle_index=False, layers_meta=False):
    """Return an App whose manifest names no bundle index, or no layers metadata."""
    manifest = json.loads(app.manifest)
    if bundle_index:
        del manifest["layers"][0]["annotations"]
    if layers_meta:
        del manifest["layers"][1]
    return App(dump(manifest), app.bundle, app.bundle_index, app.layers_meta)


def with_manifests(app, images):
    """Return an App with the list of its images' manifests that the field's own registry takes."""
    manifest = json.loads(app.manifest)
    manifest["manifests"] = [descriptor(media_type, content) for image in images
                             for media_type, content in image.manifests.values()]
    return App(dump(manifest), app.bundle, app.bundle_index, app.layers_meta)


def write(root, reference, app, images, writer=COMPOSECTL, platforms=("linux/amd64",), compose=None):
    """Write a store with one app, or add one to it; return its pinned reference.

    :param reference: "hub.demo.test/factory/shop"
    :param app: a support.apps.App
    :param images: {pinned reference: support.images.Image} of its services
    :param compose: the text of its docker-compose.yml
    """
    root = Path(root)
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (root / "ingest").mkdir(exist_ok=True)
    name = reference.split("/", 2)[2]
    home = root / "apps" / name / app.digest.removeprefix("sha256:")
    home.mkdir(parents=True)
    optional = [app.bundle_index] * (b"bundle.index.digest" in app.manifest) + \
        [app.layers_meta] * (b"layers-meta" in app.manifest)
    if writer == COMPOSECTL:
        for data in (app.manifest, app.bundle, *optional):
            _blob(blobs, data)
        os.link(blobs / app.digest[7:], home / "manifest.json")
        os.link(blobs / sha256(app.bundle)[7:], home / f"{sha256(app.bundle)[7:]}.tgz")
    else:
        (home / "manifest.json").write_bytes(app.manifest)
        (home / f"{sha256(app.bundle)[7:]}.tgz").write_bytes(app.bundle)
    (home / "docker-compose.yml").write_text(compose)
    for pinned, image in images.items():
        _image(blobs, home, pinned, image, writer, platforms)
    (home / "uri").write_text(f"{reference}@{app.digest}")
    return f"{reference}@{app.digest}"


def _image(blobs, home, pinned, image, writer, platforms):
    repository, _, digest = pinned.partition("@")
    place = home / "images" / repository / digest[7:]
    place.mkdir(parents=True)
    listed = []
    for media_type, content in variants(image, platforms):
        document = json.loads(content)
        for part in (document["config"], *document["layers"]):
            _blob(blobs, image.blobs[part["digest"]])
        _blob(blobs, content, 0o644)
        entry = {"mediaType": media_type, "digest": sha256(content), "size": len(content)}
        if writer == COMPOSECTL:
            entry["urls"] = [f"{repository}@{sha256(content)}", pinned]
            described = next((item for item in image.document.get("manifests", ())
                              if item["digest"] == sha256(content)), {})
            entry |= {"platform": described["platform"]} if described else {}
        listed.append(entry)
    if writer == COMPOSECTL:
        _blob(blobs, image.content)
    else:
        (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (place / "index.json").write_bytes(dump({"schemaVersion": 2, "manifests": listed}))


def _blob(blobs, data, mode=0o444):
    path = blobs / sha256(data)[7:]
    if not path.exists():
        path.write_bytes(data)
    path.chmod(mode)


def files(root):
    """Return {path: (inode, time of the last change, content)} of every file below a directory."""
    root = Path(root)
    return {str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(root.rglob("*")) if path.is_file()}

