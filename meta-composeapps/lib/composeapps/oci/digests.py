# SPDX-License-Identifier: MIT
"""Digests of content: ``sha256:<64 hex digits>``, the only algorithm the store has."""

import hashlib

from composeapps.patterns import Pattern

_SMALL = 16 * 1024
_DIGEST = Pattern(r"sha256:[0-9a-f]{64}")


def sha256(data):
    """Return the digest of ``data`` (bytes) as ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def stream_sha256(stream):
    """Return the digest of what a binary file holds from its position on."""
    # Most files are small, and need no buffer.
    first = stream.read(_SMALL)
    found = hashlib.sha256(first)
    if len(first) < _SMALL:
        return "sha256:" + found.hexdigest()
    # hashlib.file_digest is younger than the Python that BitBake may run on.
    buffer = memoryview(bytearray(1 << 18))
    while count := stream.readinto(buffer):
        found.update(buffer[:count])
    return "sha256:" + found.hexdigest()


def is_digest(text):
    """Tell whether ``text`` is a well-formed sha256 digest, the only algorithm the store has."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None
