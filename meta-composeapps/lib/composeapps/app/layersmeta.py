# SPDX-License-Identifier: MIT
"""Layers metadata: what each layer takes on a device's disk, for the check of free space.

Format: composectl v96, ``{architecture: {"fs_block_size": 4096, "layers": {digest:
{"size", "usage", "archive_size"}}}}``, all in bytes: the sum of the file sizes, the same
rounded up to whole blocks with an inode's worth for each entry, and the compressed blob. Layers that
could not be measured are named in a list "unmeasured" beside "layers", so that a document that names
an architecture names all of its layers.
"""

from composeapps.errors import CorruptError, UsageError
from composeapps.oci.parsing import dump_json, parse_json, parse_size

BLOCK = 4096
# A file with the layers of all apps of a factory.
MAX_GIVEN = 16 * 1024 * 1024


def write(needed, sizes, block=BLOCK):
    """Return the document (bytes).

    Arguments:
        needed: {architecture: Descriptors of layers}.
        sizes: {digest: (size, usage)}; a device estimates what the layers take that are not in it.
        block: what usage was rounded up to, in bytes.
    """
    meta = {}
    for architecture, layers in sorted(needed.items()):
        known = {layer.digest: layer.size for layer in layers if layer.digest in sizes}
        meta[architecture] = {"fs_block_size": block, "layers": {
            digest: {"size": sizes[digest][0], "usage": sizes[digest][1], "archive_size": known[digest]}
            for digest in sorted(known)}}
        unmeasured = sorted({layer.digest for layer in layers} - set(known))
        if unmeasured:
            meta[architecture]["unmeasured"] = unmeasured
    return dump_json(meta)


def usages(data):
    """Return {digest: bytes on the disk} of every architecture in a document (bytes); {} for None or no such one."""
    sizes = {}
    for _architecture, digest, entry in _entries(_parse(data)):
        usage = _size(entry.get("usage"))
        if usage is not None:
            sizes[digest] = max(usage, sizes.get(digest, 0))
    return sizes


def architectures(data):
    """Return the architectures whose layers a document (bytes) names all; none for None or no such one."""
    return {name for name, part in _parse(data).items() if isinstance(part, dict)}


def given(data, needed, path):
    """Return (sizes, block) of layers that were measured elsewhere, for ``write``.

    Arguments:
        data: the file's content (bytes), of composectl's format.
        needed: {architecture: Descriptors of layers}.
        path: how errors name the file.

    Raises UsageError for a file of another format, or one that lacks a layer.
    """
    try:
        meta = parse_json(data, str(path), limit=MAX_GIVEN)
    except CorruptError as err:
        raise UsageError(f"{err}: layers metadata is wanted") from None
    sizes, blocks = {}, set()
    known = {(architecture, digest): entry for architecture, digest, entry in _entries(meta)}
    for architecture, layers in needed.items():
        if not isinstance(meta.get(architecture), dict):
            raise UsageError(f"{path} has nothing about the architecture {architecture}: measure its layers, too, or "
                             "publish without --layers-meta")
        blocks.add(parse_size(meta[architecture].get("fs_block_size")) or BLOCK)
        for layer in layers:
            entry = known.get((architecture, layer.digest), {})
            found = _size(entry.get("size")), _size(entry.get("usage"))
            if None in found:
                raise UsageError(f"{path} does not have the layer {layer.digest} for {architecture}: an image was "
                                 "changed since it was written; write it anew, or publish without --layers-meta")
            sizes[layer.digest] = found
    return sizes, max(blocks, default=BLOCK)


def _parse(data):
    try:
        return parse_json(data or b"{}", "layers metadata")
    except CorruptError:
        return {}


def _entries(meta):
    """Yield (architecture, digest, entry) of a parsed document, leaving out what is none."""
    for architecture, part in meta.items():
        layers = part.get("layers") if isinstance(part, dict) else None
        for digest, entry in layers.items() if isinstance(layers, dict) else ():
            if isinstance(entry, dict):
                yield architecture, digest, entry


def _size(value):
    return None if isinstance(value, str) else parse_size(value)
