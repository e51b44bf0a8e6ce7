# SPDX-License-Identifier: MIT
"""An image as large as a real one, in a store: the same bytes wherever and whenever it is made.

Half of its content is text, as programs' data and scripts are, half does not compress, as
archives, pictures and much of machine code; the files' sizes are spread as a system's are.
"""

import gzip
import hashlib
import io
import os
import random
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from composeapps.app.tree import StoreSource, load_image
from composeapps.oci.digests import sha256
from composeapps.oci.documents import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, dump_json
from composeapps.oci.reference import parse_pinned
from composeapps.store.store import Store

MB = 1000 * 1000
# Bytes of files in each layer, the lowest first.
LAYERS = (110 * MB, 80 * MB, 70 * MB, 40 * MB)
REPOSITORY = "bench.example.com/sample/app"


def image(cache, progress, layers=LAYERS):
    """Return (Store, Image) of the sample, made in ``cache`` when it is not there."""
    made_by = hashlib.sha256(Path(__file__).read_bytes() + repr(layers).encode()).hexdigest()[:16]
    root = Path(cache, f"sample-{made_by}")
    if not root.is_dir():
        with progress.step(f"making an image of {sum(layers) // MB} MB (once)"):
            new = root.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            _make(Store(new), layers)
            os.rename(new, root)
    store = Store(root)
    return store, load_image(StoreSource(store), parse_pinned(f"{REPOSITORY}@{(root / 'image').read_text()}"))


def _make(store, sizes):
    words = random.Random(0)
    vocabulary = ["".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=words.randint(2, 11))) for _ in range(20000)]
    text = " ".join(words.choices(vocabulary, k=1500000)).encode()
    with ThreadPoolExecutor() as pool:
        packed = list(pool.map(lambda pair: _layer(*pair, text), enumerate(sizes)))
    blobs = [data for data, _ in packed]
    config = dump_json({"architecture": "amd64", "os": "linux", "config": {},
                        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in packed]}})
    manifest = dump_json({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": Descriptor.of(config, OCI_CONFIG).dump(),
        "layers": [Descriptor.of(data, OCI_LAYER_GZIP).dump() for data in blobs]})
    for data in (config, manifest, *blobs):
        store.add_blob(sha256(data), [data])
    (store.root / "image").write_text(sha256(manifest))


def _layer(number, size, text):
    """Return (compressed tar, diff ID) of a layer with ``size`` bytes of files."""
    choose, out, total = random.Random(number + 1), io.BytesIO(), 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for count in range(10 ** 6):
            if total >= size:
                break
            # Most files are small, most bytes are in large ones.
            length = min(int(choose.lognormvariate(8.7, 1.9)), 20 * MB, size - total)
            total += length or 1
            if count % 40 == 0:
                directory = tarfile.TarInfo(f"opt/layer{number}/d{count // 40}")
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(directory)
            member = tarfile.TarInfo(f"opt/layer{number}/d{count // 40}/f{count}")
            member.size, member.mode, member.mtime = length, 0o644, 1700000000
            archive.addfile(member, io.BytesIO(_content(choose, length, text)))
    data = out.getvalue()
    return gzip.compress(data, 6, mtime=0), sha256(data)


def _content(choose, length, text):
    if choose.random() < 0.5:
        return choose.randbytes(length)
    start = choose.randrange(len(text))
    return (text[start:start + length] + text * (length // len(text) + 1))[:length]
