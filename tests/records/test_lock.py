# SPDX-License-Identifier: MIT
"""The agent's locks: who holds one, waiting, letting go for a while."""

import subprocess
import sys

import pytest

from composeapps.errors import LockedError
from composeapps.records import lock

HOLD = ("import sys\nfrom composeapps.records.lock import exclusive\n"
        "with exclusive(sys.argv[1], subjects=sys.argv[2:]):\n print('held', flush=True)\n sys.stdin.readline()")


@pytest.fixture
def other():
    """Have another process hold a lock; return it."""
    begun = []

    def hold(path, *subjects):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), *subjects], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        begun.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in begun:
        if process.poll() is None:
            process.communicate("\n")


def test_a_second_one_is_told_who_has_it_or_waits(tmp_path, other):
    path = tmp_path / "state" / "lock"
    holder, notes = other(path, "one", "two"), []
    assert lock.subjects_of(path) == ["one", "two"] and lock.holder(path)[0] == holder.pid
    with pytest.raises(LockedError, match=f"process {holder.pid} .*wait for it"), lock.exclusive(path):
        pass

    def told(text):
        notes.append(text)
        holder.stdin.write("\n")
        holder.stdin.flush()

    with lock.exclusive(path, wait=True, notify=told):
        assert len(notes) == 1 and f"waiting for process {holder.pid}" in notes[0] and "\n" not in notes[0]
        assert lock.subjects_of(path) == []
    assert lock.holder(path) is None


def test_letting_go_gives_it_to_others_and_takes_it_back(tmp_path, other):
    path = tmp_path / "lock"
    with lock.exclusive(path, subjects=["mine"]) as held:
        with held.released():
            assert not held.is_held
            other(path).communicate("\n")
        assert held.is_held
        with pytest.raises(subprocess.CalledProcessError):
            subprocess.run([sys.executable, "-c", HOLD, str(path)], check=True, stderr=subprocess.DEVNULL)


def test_an_error_within_finds_the_lock_taken_again(tmp_path):
    with lock.exclusive(tmp_path / "lock") as held:
        with pytest.raises(KeyError), held.released():
            raise KeyError
        assert held.is_held
