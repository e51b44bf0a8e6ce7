# SPDX-License-Identifier: MIT
"""What a service uses of its bundle is found in time, however many links lead to each other."""

import time
from types import SimpleNamespace

import pytest

from composeapps.switching.definition import Definition

FILE = ("file", "0644", "sha256:" + "a" * 64)


def _definition(members):
    return Definition({}, {}, {}, {}, {}, members)


def _links(count):
    return {"l0": FILE, **{f"l{number}": ("link", f"l{number - 1}") for number in range(1, count)}}


@pytest.mark.parametrize(("members", "path", "found"), [
    (_links(10000), ".", 10000),
    (_links(10000), "l30", 1),
    ({f"d{number % 100}/f{number}": FILE for number in range(10000)}, "d7", 100),
    ({"a": ("link", "a/a")}, "a", 0),
    ({"a": ("link", "b"), "b": ("link", "a")}, "a/x", 0),
    (_links(10), "x/" * 30000, 0),
    ({"a": FILE, "a.b": FILE, "a/b": FILE, "a0": FILE, "a-": FILE}, "a", 2),
])
def test_files_of_a_service(members, path, found):
    before = time.process_time()
    for _ in range(3):
        files = _definition(members).files(SimpleNamespace(paths={path}))
    assert time.process_time() - before < 3
    assert len(files) == found, list(files)[:5]
