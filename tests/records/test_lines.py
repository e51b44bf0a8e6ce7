# SPDX-License-Identifier: MIT
"""Records that grow by lines, seen by the history: what an entry writes, and what cuts, damage and full disks leave."""

import hashlib
import json
import multiprocessing
import os
import subprocess

import pytest

from composeapps.records import history, lines, lock, repair, sealed
from composeapps.records.state import StateDirectory
from support.measured import moved

URI = "hub.demo.test/factory/web@sha256:" + "ab" * 32


@pytest.fixture
def states(tmp_path):
    return StateDirectory(tmp_path / "state")


def add(states, number, app="web", **values):
    """Append the entry of a number; return the sentences about what kept it from being written."""
    notes = []
    history.append(states, {"app": app, "action": "update", "target": URI, "result": "committed", "attempt": number,
                            **values}, notes.append)
    return notes


def numbers(states):
    return [entry["attempt"] for entry in history.entries(states)]


def places(states):
    return history.path(states), sealed.copy_of(states.root, history.RECORD)


def fill(states, count):
    """Append entries of several apps, so that the bound of none is reached."""
    for number in range(count):
        add(states, number, f"a{number % 25}")


def old_seal(data):
    return json.dumps({"checksum": hashlib.sha256(data).hexdigest()}).encode() + b"\n"


def old_write(states, entries):
    """Write the file and its copy as agents did that replaced both with each entry."""
    data = b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries)
    for place in places(states):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data + old_seal(data))


def old_read(states):
    """Read the file as those agents did: a line that is no entry is damage of all."""
    rows = history.path(states).read_bytes().splitlines(keepends=True)
    if rows[-1].startswith(b'{"checksum"'):
        seal = rows.pop()
        assert seal == old_seal(b"".join(rows))
    found = [json.loads(row) for row in rows]
    assert all(isinstance(entry["app"], str) and not any(isinstance(each, list | dict) for each in entry.values())
               for entry in found)
    return found


def test_an_entry_writes_as_much_after_many_as_after_few(states):
    fill(states, 30)
    few = moved(lambda: add(states, 1000, "b"))
    fill(states, 300)
    many = moved(lambda: add(states, 1001, "b"))
    assert few == many < 2 * 500


def test_the_file_does_not_grow_without_end_and_is_rarely_written_anew(states):
    total = moved(lambda: [add(states, number) for number in range(500)])
    line = len(lines.encode({"time": "2026-01-31T12:00:00Z", "app": "web", "action": "update", "target": URI,
                             "result": "committed", "attempt": 500}))
    assert numbers(states) == list(range(500 - history.KEEP_APP, 500))
    assert history.path(states).stat().st_size < 4 * history.KEEP_APP * line
    assert total < 2 * 500 * line * 2.5


def test_an_update_that_is_put_off_for_ever_leaves_one_entry_and_a_short_file(states):
    for _ in range(200):
        add(states, 1, started=1.5, result="deferred")
    assert numbers(states) == [1] and history.path(states).stat().st_size < 20000


@pytest.mark.parametrize("which", ["file", "copy", "both"])
def test_a_cut_at_any_byte_leaves_the_entry_or_none(states, which):
    add(states, 1)
    before = history.path(states).stat().st_size
    add(states, 2)
    whole = history.path(states).read_bytes()
    for size in range(before, len(whole) + 1):
        for place, cut in zip(places(states), (which != "copy", which != "file"), strict=True):
            place.write_bytes(whole[:size] if cut else whole)
        found, problem = history.read(states)
        assert [entry["attempt"] for entry in found] in ([1], [1, 2]) and problem == ""
        if size > before and size % 37 and size < len(whole) - 2:
            continue
        assert add(states, 3) == [] and numbers(states) in ([1, 3], [1, 2, 3])
        assert places(states)[0].read_bytes() == places(states)[1].read_bytes()


def test_zeros_in_place_of_the_last_line_are_no_damage(states):
    add(states, 1)
    with open(history.path(states), "ab") as stream:
        stream.write(bytes(300))
    assert history.read(states)[1] == "" and numbers(states) == [1]
    assert repair.repair(states) == [] and b"\0" not in history.path(states).read_bytes()


@pytest.mark.parametrize("before", [0, 1, 2 * history.KEEP_APP + 16])
def test_a_cut_at_any_step_leaves_the_entry_or_none(states, tmp_path, before):
    for number in range(before):
        add(states, number)
    kept = numbers(states)
    step = 0
    while True:
        step += 1
        root = tmp_path / f"cut{step}"
        if states.root.exists():
            subprocess.run(["cp", "-a", states.root, root], check=True)
        one = StateDirectory(root)
        process = os.fork()
        if not process:
            _end_at(step)
            add(one, 1000)
            os._exit(1)
        done = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        found, problem = history.read(one)
        found = [entry["attempt"] for entry in found]
        assert problem == "" or not before and "its second copy counts" in problem
        assert found in (kept, [*kept, 1000][-history.KEEP_APP:])
        repair.repair(one)
        assert numbers(one) == found and history.read(one)[1] == ""
        if done:
            assert found[-1] == 1000
            break
    assert step > 4


def _end_at(step):
    """Have this process end as by a power cut before its so many-th step that the file system sees."""
    left = [step]

    def counted(real):
        def act(*words, **options):
            left[0] -= 1
            if not left[0]:
                os._exit(0)
            return real(*words, **options)
        return act

    for name in ("write", "fsync", "rename", "unlink", "ftruncate", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def spoil(place, number):
    rows = place.read_bytes().splitlines(keepends=True)
    rows[number] = rows[number].replace(b"update", b"upd\xfete")
    place.write_bytes(b"".join(rows))


def test_damaged_lines_are_taken_from_the_other_file(states):
    for number in range(6):
        add(states, number)
    file, copy = places(states)
    spoil(file, 2)
    found, problem = history.read(states)
    assert [entry["attempt"] for entry in found] == [0, 1, 2, 3, 4, 5] and "second copy counts" in problem
    spoil(copy, 4)
    found, problem = history.read(states)
    assert [entry["attempt"] for entry in found] == [0, 1, 2, 3, 4, 5] and "damaged" in problem
    assert add(states, 6) == [] and numbers(states) == [0, 1, 2, 3, 4, 5, 6] and history.read(states)[1] == ""
    assert file.read_bytes() == copy.read_bytes()


def test_a_line_that_neither_has_is_the_only_one_that_is_lost(states):
    for number in range(4):
        add(states, number)
    for place in places(states):
        spoil(place, 1)
    assert numbers(states) == [0, 2, 3] and "damaged" in history.read(states)[1]
    assert any("what can be read of both is kept" in note for note in repair.repair(states))
    assert numbers(states) == [0, 2, 3] and history.read(states)[1] == ""


@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_is_missing_is_made_anew(states, lost):
    add(states, 1)
    places(states)[lost].unlink()
    assert numbers(states) == [1]
    assert add(states, 2) == [] and numbers(states) == [1, 2]
    assert places(states)[0].read_bytes() == places(states)[1].read_bytes()


def test_files_of_older_agents_are_read_and_gone_on_with(states):
    old_write(states, [{"app": "web", "result": "committed", "attempt": number, "target": URI} for number in (1, 2)])
    assert numbers(states) == [1, 2] and history.read(states)[1] == "" and repair.repair(states) == []
    assert add(states, 3) == [] and numbers(states) == [1, 2, 3]
    # And the other way round, after the slot of the system was rolled back, and again.
    rows = old_read(states)
    assert [row["attempt"] for row in rows] == [1, 2, 3]
    old_write(states, [*rows, {"app": "web", "result": "failed", "attempt": 4}])
    assert numbers(states) == [1, 2, 3, 4] and add(states, 5) == []
    assert [row["attempt"] for row in old_read(states)] == [1, 2, 3, 4, 5] == numbers(states)


def test_damage_in_a_file_of_an_older_agent_leaves_the_other_one(states):
    old_write(states, [{"app": "web", "attempt": number} for number in (1, 2, 3)])
    file, copy = places(states)
    file.write_bytes(file.read_bytes().replace(b'"attempt": 2', b'"attempt": 9'))
    found, problem = history.read(states)
    assert [entry["attempt"] for entry in found] == [1, 2, 3] and "second copy counts" in problem
    copy.write_bytes(copy.read_bytes()[:20])
    assert numbers(states) == [1, 9, 3] and "damaged" in history.read(states)[1]


@pytest.mark.root
def test_on_a_full_disk_the_old_entries_stay_and_nothing_is_raised(small_disk):
    states = StateDirectory(small_disk / "state")
    fill(states, 9)
    with open(small_disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(os.urandom(65536))
    there, notes, number = 9, [], 100
    while not notes:
        # What there is room for in the last block comes in; no entry by halves.
        notes = add(states, number, f"b{number}", reason="y" * 300)
        there, number = there + (not notes), number + 1
        assert len(history.entries(states)) == there and history.read(states)[1] == ""
    assert "full" in notes[0] and not list(states.root.glob("**/.tmp-*"))
    (small_disk / "filler").unlink()
    assert add(states, 999) == [] and numbers(states)[-1] == 999 and len(history.entries(states)) == there + 1
    assert places(states)[0].read_bytes() == places(states)[1].read_bytes()


@pytest.mark.root
def test_on_a_read_only_file_system_it_is_said(small_disk):
    states = StateDirectory(small_disk / "state")
    add(states, 1)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    notes = add(states, 2)
    assert "read-only" in notes[0] and numbers(states) == [1] and repair.repair(states) == []


def test_the_order_is_that_in_which_they_came_whatever_the_clock_says(states, monkeypatch):
    add(states, 1)
    monkeypatch.setattr(history, "timestamp", lambda: "1970-01-01T00:00:07Z")
    add(states, 2)
    add(states, 2)
    assert numbers(states) == [1, 2, 2] and history.entries(states)[-1]["time"].startswith("1970")


def test_two_processes_write_beside_each_other(states):
    def work(app):
        for number in range(history.KEEP_APP):
            with lock.exclusive(states.lock_file, True):
                add(states, number, app)

    context = multiprocessing.get_context("fork")
    both = [context.Process(target=work, args=(app,)) for app in ("one", "two")]
    for each in both:
        each.start()
    for each in both:
        each.join()
        assert each.exitcode == 0
    for app in ("one", "two"):
        assert [entry["attempt"] for entry in history.entries(states, app)] == list(range(history.KEEP_APP))
    assert history.read(states)[1] == ""
