# SPDX-License-Identifier: MIT
"""Digests of content: ``sha256:<64 hex digits>``, the only algorithm the store has."""

import hashlib
import re

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def sha256(data):
    """Return the digest of ``data`` (bytes) as ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def stream_sha256(stream):
    """Return the digest of what a binary file holds from its position on."""
    found = hashlib.sha256()
    # hashlib.file_digest is younger than the Python that BitBake may run on.
    buffer = memoryview(bytearray(1 << 18))
    while count := stream.readinto(buffer):
        found.update(buffer[:count])
    return "sha256:" + found.hexdigest()


def is_digest(text):
    """Tell whether ``text`` is a well-formed sha256 digest, the only algorithm the store has."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None
