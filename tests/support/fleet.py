# SPDX-License-Identifier: MIT
"""Apps put into a store as a pull would have, without a registry: many of them, or with many services, at no cost."""

import json

from composeapps.app.tree import StoreSource, load_app
from composeapps.oci.reference import parse_pinned
from support.apps import make_app
from support.engine import busybox_image
from support.images import make_image, sha256, tar
from support.updating import HASH

HOST = "hub.demo.test"


def put(store, name, services, **top):
    """Put an app into a store; return its pinned reference.

    Arguments:
        store: the Store.
        name: the app's.
        services: {name: what support.updating.service returned}; equal content is one image.
        top: further keys of the compose file.
    """
    definitions, digests = {}, {}
    for key, description in services.items():
        content = description["content"]
        if content not in digests:
            digests[content] = _add_image(store, content)
        definition = {name: value for name, value in description.items() if name != "content"}
        definition["labels"] = {
            HASH: sha256(json.dumps([name, digests[content], definition]).encode()).removeprefix("sha256:")}
        definitions[key] = {"image": f"{HOST}/f/base@{digests[content]}", **definition}
    made = make_app(json.dumps({"services": definitions, **top}, indent=1), {"note": name})
    for data in (made.manifest, b"{}", made.bundle, made.bundle_index, made.layers_meta):
        store.add_blob(sha256(data), [data])
    app = load_app(StoreSource(store), parse_pinned(f"{HOST}/f/{name}@{made.digest}"))
    store.add_app(app)
    return str(app.ref)


def _add_image(store, content):
    image = busybox_image(make_image, tar, {"content": content})
    for digest, blob in {**image.blobs, image.digest: image.content}.items():
        store.add_blob(digest, [blob])
    return image.digest
