# SPDX-License-Identifier: MIT
"""What a service uses of its bundle is found with steps in proportion, however many links lead to each other."""

from types import SimpleNamespace

import pytest

from composeapps.switching.definition import Definition, Members
from support.steps import beyond_linear, counted

FILE = ("file", "0644", "sha256:" + "a" * 64)
SIZES = (250, 500, 1000)


def _files(members, path):
    return Definition({}, {}, {}, {}, {}, Members(members)).files(SimpleNamespace(paths={path}))


def _links(count):
    return {"l0": FILE, **{f"l{number}": ("link", f"l{number - 1}") for number in range(1, count)}}


def _many(count):
    return {f"d{number % 100}/f{number}": FILE for number in range(count)}


@pytest.mark.parametrize(("members", "path", "found"), [
    (_links(1000), ".", 1000),
    (_links(1000), "l30", 1),
    (_many(1000), "d7", 10),
    ({"a": ("link", "a/a")}, "a", 0),
    ({"a": ("link", "b"), "b": ("link", "a")}, "a/x", 0),
    (_links(10), "x/" * 30000, 0),
    ({"a": FILE, "a.b": FILE, "a/b": FILE, "a0": FILE, "a-": FILE}, "a", 2),
])
def test_files_of_a_service(members, path, found):
    files = _files(members, path)
    assert len(files) == found, list(files)[:5]


@pytest.mark.parametrize(("members", "path"), [
    (_links, "."), (_links, "l30"), (_many, "d7"),
    (lambda count: {"d": ("link", "e"), **{f"e/f{number}": FILE for number in range(count)}}, "d"),
])
def test_steps_grow_with_the_members_alone(members, path):
    counts = [counted(_files, members(size), path)[1] for size in SIZES]
    assert beyond_linear(SIZES, counts) == []


def test_steps_grow_with_a_path_alone():
    counts = [counted(_files, _links(10), "x/" * size)[1] for size in SIZES]
    assert beyond_linear(SIZES, counts) == []
