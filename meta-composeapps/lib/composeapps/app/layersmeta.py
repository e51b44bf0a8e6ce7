# SPDX-License-Identifier: MIT
"""Layers metadata: what each layer takes on a device's disk, for the check of free space.

Format: composectl v96, ``{architecture: {"fs_block_size": 4096, "layers": {digest:
{"size", "usage", "archive_size"}}}}``, all in bytes: the sum of the file sizes, the same
rounded up to whole blocks with an inode's worth for each entry, and the compressed blob.
"""

import tarfile

from composeapps.errors import CorruptError
from composeapps.oci.documents import dump_json

BLOCK = 4096


class _Chunks:
    """A file-like view of an iterator of bytes, enough for tarfile's stream mode."""

    def __init__(self, chunks):
        self._chunks = iter(chunks)
        self._left = b""

    def read(self, size):
        while len(self._left) < size and (chunk := next(self._chunks, b"")):
            self._left += chunk
        data, self._left = self._left[:size], self._left[size:]
        return data


def measure(chunks, what):
    """Return (size, usage) in bytes of an unpacked layer.

    Arguments:
        chunks: the layer's blob, compressed or not, as an iterable of bytes; read to its end.
        what: how errors name it.

    Raises CorruptError when it is no tar archive.
    """
    stream, size, usage = _Chunks(chunks), 0, 0
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for info in tar:
                size += info.size
                usage += BLOCK if not info.isreg() or not info.size else -(-info.size // BLOCK) * BLOCK
    except (tarfile.TarError, EOFError, OSError) as err:
        raise CorruptError(f"{what} is not a readable layer: {err}") from None
    while stream.read(1024 * 1024):
        pass
    return size, usage


def collect(images, read_layer, on_layer=None):
    """Measure every layer of an app's images, each once.

    Arguments:
        images: composeapps.app.tree.Images.
        read_layer: called with an image's Reference and a layer's Descriptor; returns its chunks.
        on_layer: called with the Descriptor before each one is read.

    Returns the document (bytes).
    """
    meta, measured = {}, {}
    for image in images:
        for variant in image.variants:
            layers = meta.setdefault(variant.platform.architecture, {"fs_block_size": BLOCK, "layers": {}})["layers"]
            for layer in variant.document.layers:
                if layer.digest not in measured:
                    if on_layer:
                        on_layer(layer)
                    size, usage = measure(read_layer(image.ref, layer), f"layer {layer.digest} of {image.ref}")
                    measured[layer.digest] = {"size": size, "usage": usage, "archive_size": layer.size}
                layers[layer.digest] = measured[layer.digest]
    for architecture in meta.values():
        architecture["layers"] = dict(sorted(architecture["layers"].items()))
    return dump_json(dict(sorted(meta.items())))
