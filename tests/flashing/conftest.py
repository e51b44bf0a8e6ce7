# SPDX-License-Identifier: MIT
"""An image, and disks to write it to: files behind loop devices."""

import contextlib
import os
import subprocess

import pytest

MEBIBYTE = 1 << 20


def run(*words, **more):
    env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, env=env,
                          **more).stdout.strip()


@pytest.fixture
def image(tmp_path):
    """A sparse image of 64 MiB with partitions, one of which is for provisioning, and its map."""
    path = tmp_path / "shop.wic"
    with open(path, "wb") as stream:
        stream.truncate(64 * MEBIBYTE)
    run("sfdisk", "-q", path, input='label: gpt\nsize=16384, name="root"\nsize=2048, name="provision"\nname="data"\n')
    with open(path, "r+b") as stream:
        for place in (2, 20, 40):
            stream.seek(place * MEBIBYTE)
            stream.write(os.urandom(3 * MEBIBYTE))
    run("bmaptool", "create", "-o", f"{path}.bmap", path)
    return path


@pytest.fixture
def disk(tmp_path):
    """A function that makes a disk of a size in MiB, full of other data; returns its device."""
    with contextlib.ExitStack() as stack:
        def make(size=96, *options):
            file = tmp_path / f"disk-{size}"
            file.write_bytes(b"\xa5" * size * MEBIBYTE)
            loop = run("losetup", "--find", "--show", "--partscan", *options, file)
            stack.callback(run, "losetup", "-d", loop)
            return loop

        yield make
