# SPDX-License-Identifier: MIT
"""Stores as the field's own programs leave them on a device, byte by byte, without the product's code.

``composectl pull`` (v96): all blobs below ``blobs/sha256``, read-only but for the images' manifests; hard
links to the app's manifest and bundle; an ``index.json`` an image with the manifest of the device's
platform, with the addresses that it came from, or, of an image that has no index, that and one of the
services that have it; no ``oci-layout``. tests/store/test_composectl.py holds this against the program.

``composectl update`` (v96): the same blobs, all of them read-only, and of the app its ``uri`` alone.

``skopeo`` (as aktualizr-lite calls it): the app's manifest and bundle lie in the app's directory alone,
an image's index is not kept, and its ``index.json`` is that of an OCI layout.
"""

import json
import os
from pathlib import Path

import yaml

from support.apps import App
from support.images import descriptor, dump, sha256

COMPOSECTL, UPDATE, SKOPEO = "composectl", "composectl update", "skopeo"


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
    if writer != SKOPEO:
        for data in (app.manifest, app.bundle, *optional):
            _blob(blobs, data)
    if writer == COMPOSECTL:
        os.link(blobs / app.digest[7:], home / "manifest.json")
        os.link(blobs / sha256(app.bundle)[7:], home / f"{sha256(app.bundle)[7:]}.tgz")
    elif writer == SKOPEO:
        (home / "manifest.json").write_bytes(app.manifest)
        (home / f"{sha256(app.bundle)[7:]}.tgz").write_bytes(app.bundle)
    if writer != UPDATE:
        (home / "docker-compose.yml").write_text(compose)
    services = yaml.safe_load(compose)["services"]
    for pinned, image in images.items():
        service = next((name, each) for name, each in services.items() if each["image"] == pinned)
        _image(blobs, home, pinned, image, writer, platforms, service)
    (home / "uri").write_text(f"{reference}@{app.digest}")
    return f"{reference}@{app.digest}"


def _image(blobs, home, pinned, image, writer, platforms, service):
    repository, _, digest = pinned.partition("@")
    place = home / "images" / repository / digest[7:]
    listed = []
    for media_type, content in variants(image, platforms):
        document = json.loads(content)
        for part in (document["config"], *document["layers"]):
            _blob(blobs, image.blobs[part["digest"]])
        _blob(blobs, content, 0o444 if writer == UPDATE else 0o644)
        entry = {"mediaType": media_type, "digest": sha256(content), "size": len(content)}
        if writer == COMPOSECTL:
            entry |= _noted(repository, pinned, image, sha256(content), service)
        listed.append(entry)
    if writer != SKOPEO and image.manifests:
        _blob(blobs, image.content)
    if writer == UPDATE:
        return
    place.mkdir(parents=True)
    if writer == SKOPEO:
        (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (place / "index.json").write_bytes(dump({"schemaVersion": 2, "manifests": listed}))


def _noted(repository, pinned, image, digest, service):
    """Return what composectl notes of a manifest besides, in its order."""
    described = next((item for item in image.document.get("manifests", ()) if item["digest"] == digest), None)
    if described is None:
        name, value = service
        config_hash = value.get("labels", {}).get("io.compose-spec.config-hash")
        noted = {**({"io.compose-spec.config-hash": config_hash} if config_hash else {}),
                 "org.foundries.app.service.name": name}
        return {"urls": [pinned], "annotations": noted}
    platform = {key: described["platform"][key] for key in ("architecture", "os", "os.version", "variant")
                if key in described["platform"]}
    noted = {"annotations": described["annotations"]} if "annotations" in described else {}
    return {"urls": [f"{repository}@{digest}", pinned], **noted, "platform": platform}


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

