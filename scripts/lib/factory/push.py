# SPDX-License-Identifier: MIT
"""Push an OCI image layout to a registry; what the registry has already is not sent again."""

from pathlib import Path

from composeapps.errors import CorruptError
from composeapps.oci.documents import parse_document, parse_json


def push_layout(client, ref, layout):
    """Push the one image of a layout.

    :param client: a ``composeapps.registry.client.RegistryClient``
    :param ref: the ``composeapps.oci.reference.Reference`` to push as, with a tag
    :param layout: directory of an OCI image layout that names one image or index
    :returns: (digest of the image or index, bytes that were sent)
    :raises CorruptError: the layout is not one, or names more than one image
    :raises RegistryError: the registry cannot be reached or refuses
    """
    layout = Path(layout)
    entries = parse_json((layout / "index.json").read_bytes(), f"{layout}/index.json").get("manifests") or []
    if len(entries) != 1:
        raise CorruptError(f"{layout} names {len(entries)} images where one is expected")
    digest = entries[0]["digest"]
    root = parse_document(_path(layout, digest).read_bytes(), f"{digest} of {layout}")
    if root.digest != digest:
        raise CorruptError(f"{digest} of {layout} has the digest {root.digest}: remove {layout}, it is made again")
    sent = 0
    for entry in root.manifests:
        document = parse_document(_path(layout, entry.digest).read_bytes(), f"{entry.digest} of {layout}")
        sent += _push_manifest(client, ref, layout, document)
    if root.kind == "manifest":
        sent += _push_manifest(client, ref, layout, root, tag=True)
    else:
        # The tag may point elsewhere, so the index goes each time: it is a few hundred bytes.
        client.push_manifest(ref, root.data, root.media_type)
        sent += len(root.data)
    return digest, sent


def _push_manifest(client, ref, layout, document, tag=False):
    sent = 0
    for descriptor in (document.config, *document.layers):
        path = _path(layout, descriptor.digest)
        if client.push_blob(ref, descriptor.digest, descriptor.size, lambda path=path: open(path, "rb")):  # noqa: SIM115
            sent += descriptor.size
    target = ref if tag else ref.pinned(document.digest)
    if tag or not client.exists(ref, "manifests", document.digest):
        client.push_manifest(target, document.data, document.media_type)
        sent += len(document.data)
    return sent


def _path(layout, digest):
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
