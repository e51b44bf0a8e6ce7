# SPDX-License-Identifier: MIT
"""A layer's tar put together again from tar-split.json.gz and its files, to compare its digest.

Shares nothing with the product's own check. Format of tar-split: a gzip of JSON objects, one a
line; ``type`` 2 is a piece of the archive in base64 (``payload``), ``type`` 1 a file (``name`` or,
when that is no UTF-8, ``name_raw`` in base64; ``size`` in bytes) whose content stands at that place.
"""

import base64
import gzip
import hashlib
import json
import os
import zlib
from pathlib import Path

FILE, SEGMENT = 1, 2
CHUNK = 256 * 1024


class Damage(Exception):
    """The layer cannot be put together; the message says why."""


def _open(directory, name):
    """Open a file below ``directory``, through no symbolic link: what a cut left may name anything."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise Damage(f"a file is called '{name}'")
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return open(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor), "rb")
    finally:
        os.close(descriptor)


def digest(tar_split, directory):
    """Return "sha256:<hex>" of the tar that ``tar_split`` and the files in ``directory`` make.

    Raises Damage when a file is missing, has another size, or tar-split cannot be read.
    """
    hasher = hashlib.sha256()
    try:
        with gzip.open(tar_split, "rb") as lines:
            for line in lines:
                entry = json.loads(line)
                if entry["type"] == SEGMENT:
                    hasher.update(base64.b64decode(entry["payload"] or b""))
                elif entry.get("size"):
                    raw = entry.get("name_raw")
                    name = os.fsdecode(base64.b64decode(raw)) if raw else entry["name"]
                    _add_file(hasher, directory, name, entry["size"])
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as err:
        raise Damage(f"{Path(tar_split).name}: {err}") from None
    return "sha256:" + hasher.hexdigest()


def _add_file(hasher, directory, name, size):
    try:
        with _open(directory, name) as stream:
            total = 0
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
                total += len(chunk)
    except OSError as err:
        raise Damage(f"{name}: {err.strerror}") from None
    if total != size:
        raise Damage(f"{name} has {total} bytes, not {size}")
