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


@pytest.mark.root
def test_who_holds_it_is_not_told_on_the_flash(tmp_path, other):
    path = tmp_path / "lock"
    holder = other(path)
    assert path.stat().st_size == 0 and lock.holder(path)[0] == holder.pid
    with pytest.raises(LockedError, match=f"process {holder.pid} "), lock.exclusive(path):
        pass
    (said,) = (place for place in lock.RUNTIME.iterdir() if f"process {holder.pid} " in place.read_text())
    holder.communicate("\n")
    assert not said.exists() and lock.holder(path) is None


def test_where_there_is_no_other_place_the_file_tells(tmp_path, other, monkeypatch):
    (tmp_path / "file").touch()
    path = tmp_path / "lock"
    monkeypatch.setattr(lock, "RUNTIME", tmp_path / "file" / "none")
    with lock.exclusive(path):
        assert path.read_text().startswith("process ")
    holder = other(path, "a version")
    # What an agent that was killed said before is not believed.
    monkeypatch.setattr(lock, "RUNTIME", tmp_path / "run")
    lock.RUNTIME.mkdir()
    lock._said_in(path.stat()).write_text("process 1 (composeapps run)\n")
    assert lock.holder(path)[0] == holder.pid and lock.subjects_of(path) == ["a version"]
    with pytest.raises(LockedError, match=f"process {holder.pid} "), lock.exclusive(path):
        pass
