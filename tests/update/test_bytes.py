# SPDX-License-Identifier: MIT
"""How much each command reads of a bundle, of its blob and of what is unpacked, in sizes of the bundle."""

import random

import pytest

from support.measured import moved
from support.updating import service

pytestmark = pytest.mark.root

SIZE = 16_000_000
# What else is read: documents, dockerd's answers, images, programs.
REST = 6_000_000


@pytest.fixture
def versions(publisher, name):
    """Two versions that differ in a quarter of their files."""
    contents = [random.Random(number).randbytes(SIZE // 4) for number in range(5)]
    web = {"web": service(volumes=["./d:/d:ro"])}
    return [publisher.version(name, web, {f"d/{number}": content for number, content in enumerate(files)})
            for files in (contents[:4], contents[1:4] + contents[4:])]


def test_no_command_reads_a_bundle_more_often_than_it_has_to(run, name, versions, no_registry):
    first, second = versions

    def check(most, *words, status=0):
        done = []
        count = moved(lambda: done.append(run(*words)), "rchar")
        assert done[0][0] == status, done
        assert count < most * SIZE + REST, f"{words} read {count / SIZE:.1f} times the size of a bundle"

    # From the network, and once out of the store for the images that it names.
    check(2, "pull", first)
    check(1, "pull", first)
    check(1, "pull", "--verify", first)
    check(1, "check", "--store-only", name)
    # Once to know what is in it, and once to unpack it.
    check(2, "install", first)
    # The blob, and what is unpacked.
    for words in (("install", first), ("run", name), ("run", name), ("run", "--installed"), ("check", name)):
        check(2, *words)
    for words in (("check", "--quick", name), ("ps", name), ("show", name), ("show", "--compose", name),
                  ("status", name), ("prune", "--dry-run"), ("ls",), ("history",), ("stop", name)):
        check(0, *words)
    # The new bundle from the network, the old one from the store.
    check(2, "update", "--plan", second)
    # The new bundle from the network, to know what is in it and to unpack it; the old one; what is unpacked.
    check(5, "update", second)
    # Both, what is unpacked, and the old one to unpack it.
    no_registry()
    check(4, "rollback", name)
    # What was changed would be set aside.
    check(1, "rm", name)
