# SPDX-License-Identifier: MIT
"""Digests of content: ``sha256:<64 hex digits>``, the only algorithm the store has."""

import hashlib
import re

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def sha256(data):
    """Return the digest of ``data`` (bytes) as ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text):
    """Tell whether ``text`` is a well-formed sha256 digest, the only algorithm the store has."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None
