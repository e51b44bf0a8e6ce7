# SPDX-License-Identifier: MIT
"""Fixtures of the emulator's tests: a guest that boots in seconds, and machines that run it."""

import hashlib
import os
import select
from dataclasses import replace
from pathlib import Path

import pytest

from emulator import Machine
from emulator.console import printable
from support import guest as guests


@pytest.fixture(scope="session")
def guest():
    """The small guest: ``.kernel``, ``.initrd``, ``.cmdline``."""
    return guests.make()


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    """A raw disk whose ext4 holds the file ``marker``; nobody may change it."""
    path = guests.make_disk(tmp_path_factory.mktemp("disk") / "base.img", {"marker": b"from the base\n"})
    before = hashlib.sha256(path.read_bytes()).digest()
    yield path
    assert hashlib.sha256(path.read_bytes()).digest() == before, "a test's machine changed the base image"


@pytest.fixture(scope="session")
def new_machine(guest, tmp_path_factory):
    """Returns a function that makes a Machine of the small guest; words added to its command line come first."""

    def make(words="", *, memory=256, **options):
        booted = replace(guest, cmdline=f"{guest.cmdline} {words}".strip())
        options.setdefault("run_dir", tmp_path_factory.mktemp("run"))
        return Machine(
            kernel=booted.kernel, initrd=booted.initrd, cmdline=booted.cmdline, memory=memory, **options,
        )

    return make


@pytest.fixture(scope="session")
def vm(new_machine):
    """One machine, up and logged in, for tests that only run commands in it."""
    with new_machine() as running:
        yield running


class ProcessWatch:
    """Sees a process end, however it is related to this one."""

    def __init__(self, pid):
        self._fd = os.pidfd_open(pid)

    def ended(self, timeout=30):
        """Wait up to ``timeout`` seconds; tell whether the process has ended."""
        return bool(select.select([self._fd], [], [], timeout)[0])

    def close(self):
        os.close(self._fd)


@pytest.fixture
def watch():
    """Returns a function that gives a ProcessWatch of a process id."""
    watches = []

    def make(pid):
        watches.append(ProcessWatch(pid))
        return watches[-1]

    yield make
    for watched in watches:
        watched.close()


@pytest.fixture
def serial_text():
    """Returns a function that reads what a machine's console showed so far."""
    return lambda machine: printable(Path(machine.run_dir, "serial.log").read_bytes())
