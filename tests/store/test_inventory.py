# SPDX-License-Identifier: MIT
"""What names an app's blobs is found wherever it stands, whatever stands around it."""

import pytest

from composeapps.store import inventory

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(("text", "found"), [
    (f"image: hub.example.com:5000/f/a-b_c@{DIGEST}", [f"hub.example.com:5000/f/a-b_c@{DIGEST}"]),
    (f'{{"image":"[::1]:5000/f/a@{DIGEST}"}}', [f"1]:5000/f/a@{DIGEST}", f"[::1]:5000/f/a@{DIGEST}"]),
    (f"./-a/b@{DIGEST}", [f"a/b@{DIGEST}"]),
    (f"a/b@{DIGEST}c/d@{DIGEST}", [f"a/b@{DIGEST}", f"c/d@{DIGEST}"]),
    (f"[a/b@{DIGEST}]", [f"a/b@{DIGEST}", f"[a/b@{DIGEST}"]),
    (f"@{DIGEST} --@{DIGEST} a/b@{DIGEST[:-1]}", []),
    ("x" * 5_000_000 + "@", []),
    (f"y={'x' * 1_000_000} a/b@{DIGEST}", [f"a/b@{DIGEST}"]),
])
def test_pinned_references_are_found_in_any_text(text, found):
    assert inventory._references(text.encode()) == found
