# SPDX-License-Identifier: MIT
"""Synthetic compose apps in a registry, written as the field's Go tool writes them.

Like support.images this shares no code with the product: tests use it to check what the
product reads, and what it must refuse.
"""

import gzip
import json
from dataclasses import dataclass

from support.images import (
    MANIFEST,
    descriptor,
    dump,
    push_blob,
    push_image,
    push_manifest,
    sha256,
    split_reference,
    tar,
)

EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
ARTIFACT_TYPE = "application/vnd.fio+compose-app"
OCTETS = "application/octet-stream"


@dataclass
class App:
    """The documents of one app: ``manifest`` bytes, ``bundle`` (.tgz), ``bundle_index`` and ``layers_meta``."""

    manifest: bytes
    bundle: bytes
    bundle_index: bytes
    layers_meta: bytes

    @property
    def digest(self):
        return sha256(self.manifest)


def compose_text(services):
    """Return the text of a pinned docker-compose.yml for ``services`` ({name: image reference})."""
    lines = ["services:"]
    for name, image in services.items():
        config_hash = sha256(image.encode()).removeprefix("sha256:")
        lines += [
            f"  {name}:", f"    image: {image}", "    labels:", f"      io.compose-spec.config-hash: {config_hash}",
        ]
    return "\n".join(lines) + "\n"


def make_app(compose, files=None, images=()):
    """Return the App with this compose text and support ``files``.

    :param compose: content of docker-compose.yml, or None to leave the file out
    :param images: the support.images.Image objects of its services, for the layers-meta document
    """
    content = dict(files or {})
    if compose is not None:
        content["docker-compose.yml"] = compose
    bundle = gzip.compress(tar(content), 6, mtime=0)
    index = dump({path: sha256(data.encode() if isinstance(data, str) else data)
                  for path, data in sorted(content.items())})
    meta = dump(_layers_meta(images))
    manifest = dump({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT_TYPE,
        "config": descriptor(EMPTY_CONFIG, b"{}"),
        "layers": [
            descriptor(OCTETS, bundle, annotations={
                "org.foundries.app.bundle.index.digest": sha256(index),
                "org.foundries.app.bundle.index.size": str(len(index)),
            }),
            descriptor(OCTETS, meta, annotations={"layers-meta": "v1"}),
        ],
        "annotations": {"compose-app": "v1"},
    })
    return App(manifest, bundle, index, meta)


def _layers_meta(images):
    meta = {}
    for image in images:
        documents = [json.loads(content) for _, content in image.manifests.values()] or [image.document]
        for document in documents:
            architecture = json.loads(image.blobs[document["config"]["digest"]])["architecture"]
            layers = meta.setdefault(architecture, {"fs_block_size": 4096, "layers": {}})["layers"]
            for layer in document["layers"]:
                unpacked = len(gzip.decompress(image.blobs[layer["digest"]]))
                usage = -(-unpacked // 4096) * 4096
                layers[layer["digest"]] = {"size": unpacked, "usage": usage, "archive_size": layer["size"]}
    return meta


def push_app(registry, reference, app):
    """Push ``app`` as ``reference`` and return its pinned reference."""
    repo, tag = split_reference(reference)
    for data in (b"{}", app.bundle, app.bundle_index, app.layers_meta):
        push_blob(registry, repo, data)
    push_manifest(registry, repo, tag, MANIFEST, app.manifest)
    return f"{registry.host}/{repo}@{app.digest}"


def publish(registry, reference, images, files=None):
    """Push ``images`` ({service: Image}) beside the app and the app itself; return its pinned reference.

    The image of service "web" of "hub.demo.test/f/shop:1" goes to "hub.demo.test/f/shop-web:1".
    """
    repo, tag = split_reference(reference)
    pinned = {
        name: push_image(registry, f"{registry.host}/{repo}-{name}:{tag}", image)
        for name, image in images.items()
    }
    return push_app(registry, reference, make_app(compose_text(pinned), files, images.values()))
