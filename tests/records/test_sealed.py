# SPDX-License-Identifier: MIT
"""Records with a checksum and a second copy: which damage they outlive, and what a cut leaves of them."""

import contextlib
import errno
import json
import os
import shutil

import pytest

from composeapps import durable
from composeapps.errors import StorageError
from composeapps.records import history, journal, preloaded, rejection, repair, sealed
from composeapps.records.state import AppState, StateDirectory

URI = "hub.demo.test/factory/web@sha256:" + "ab" * 32
OTHER = "hub.demo.test/factory/web@sha256:" + "cd" * 32
DAMAGES = {"empty": b"", "zeros": bytes(300), "cut": b'{"uri": "hub', "list": b"[]", "deep": b"[" * 100000}


@pytest.fixture
def states(tmp_path):
    return StateDirectory(tmp_path / "state")


def fill(states):
    """Write one record of each kind; return {record: a function that tells whether it says what it should}."""
    states.put("web", AppState(URI, {"s": "i"}, True, OTHER))
    states.note_removal("gone", {"volumes": True})
    journal.write(states, journal.new("web", URI, OTHER), step=journal.SWITCHING)
    rejection.count(states, OTHER, "it fails", "1")
    preloaded.note(states, "web", URI)
    history.append(states, {"app": "web", "result": "failed"})
    return {
        "apps/web.json": lambda: states.get("web") == AppState(URI, {"s": "i"}, True, OTHER),
        "removed/gone.json": lambda: states.removals() == {"gone": {"volumes": True}},
        "updates/web.json": lambda: journal.read(states, "web").step == journal.SWITCHING,
        "failures.json": lambda: rejection.failures(states)[OTHER].count == 1,
        "factory.json": lambda: URI in preloaded.find(states).value["web"],
        "history.jsonl": lambda: "failed" in [entry["result"] for entry in history.entries(states)],
    }


def flip(path):
    """Change one letter of a value, so that the file stays well-formed."""
    data = path.read_bytes()
    at = data.index(b"web") if b"web" in data else data.index(b"tru")
    path.write_bytes(data[:at] + b"x" + data[at + 1:])


@pytest.mark.parametrize("damage", [*DAMAGES, "flipped", "missing", "directory"])
@pytest.mark.parametrize("which", ["file", "copy"])
def test_one_damaged_copy_costs_nothing_and_is_made_anew(states, damage, which):
    for record, says in fill(states).items():
        path = states.root / record
        place = path if which == "file" else sealed.copy_of(states.root, record)
        if damage == "flipped":
            flip(place)
        else:
            place.unlink()
            if damage == "directory":
                place.mkdir()
            elif damage != "missing":
                place.write_bytes(DAMAGES[damage])
        assert says(), record
        notes = repair.repair(states)
        assert says(), record
        if damage == "directory" and place.is_dir():
            # What cannot be replaced is left, and told again.
            place.rmdir()
            repair.repair(states)
        assert damage == "missing" and which == "copy" or any(path.name in note for note in notes), record
        assert path.read_bytes() == sealed.copy_of(states.root, record).read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
def test_both_damaged_is_lost_and_not_the_same_as_nothing(states, damage):
    for record in fill(states):
        for place in (states.root / record, sealed.copy_of(states.root, record)):
            place.write_bytes(DAMAGES[damage])
    assert states.find("web").lost and states.names() == ["web"] and list(states.removals()) == ["gone"]
    assert journal.find(states, "web").lost
    assert rejection.find(states).lost and preloaded.find(states).lost
    assert not states.find("other").lost and states.find("other").value is None


def test_files_of_an_agent_without_checksums_are_believed(states):
    states.root.joinpath("apps").mkdir(parents=True)
    (states.root / "apps" / "web.json").write_text(json.dumps({"uri": URI, "images": {}, "stopped": True}))
    (states.root / "factory.json").write_text(json.dumps({"web": URI}))
    (states.root / "history.jsonl").write_text('{"app": "web", "time": "2026-01-31T12:00:00Z"}\n')
    assert states.get("web") == AppState(URI, {}, True)
    assert preloaded.known(states, "web") == {URI} and len(history.entries(states)) == 1
    assert repair.repair(states) == []
    (states.root / "apps" / "web.json").write_text("")
    assert states.get("web").uri == URI


def test_a_state_of_another_app_or_without_a_version_is_damaged(states):
    states.put("web", AppState(URI))
    for uri in ("", "x y", URI.replace("/web@", "/db@"), URI[:-1]):
        data = sealed.dump({"uri": uri, "images": {}, "stopped": False})
        for place in (states.root, states.root / sealed.COPIES):
            (place / "apps" / "web.json").write_bytes(data)
        assert states.find("web").lost


def test_what_failed_is_known_by_the_history_when_its_own_record_is_lost(states):
    for target, result in ((URI, "rolled-back"), (OTHER, "rolled-back"), (URI, "rolled-back"), (OTHER, "committed")):
        history.append(states, {"app": "web", "target": target, "result": result, "reason": "why"})
    # What the device was to blame for is no failure here either.
    for target in (URI, OTHER):
        history.append(states, {"app": "web", "target": target, "result": "rolled-back", "excused": True})
    (states.root / "failures.json").write_text("{")
    found = rejection.failures(states)
    assert set(found) == {URI} and found[URI].count == 2 and rejection.rejected(states, URI, 2)
    # Without the record there is nothing that was lost.
    (states.root / "failures.json").unlink()
    assert rejection.failures(states) == {}


@pytest.mark.parametrize("place", ["apps", "copies", "copies/apps", "apps/web.json", "copies/apps/web.json"])
@pytest.mark.parametrize("kind", ["file", "directory", "pipe"])
def test_a_record_is_written_whatever_a_damaged_file_system_left_in_its_place(states, place, kind):
    states.put("web", AppState(URI))
    path = states.root / place
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kind == "directory":
        (path / "deep").mkdir(parents=True)
    else:
        path.touch() if kind == "file" else os.mkfifo(path)
    states.put("web", AppState(OTHER))
    for each in ("apps/web.json", "copies/apps/web.json"):
        assert json.loads((states.root / each).read_bytes())["uri"] == OTHER


class Cut(Exception):
    """The power goes."""


def cutting(monkeypatch, count):
    """Have nothing happen from the ``count``-th change of the file system on; return what tells whether it came so far.
    """
    came = 0

    def counted(function):
        def wrapper(*args, **kwargs):
            nonlocal came
            came += 1
            if came >= count:
                raise Cut
            return function(*args, **kwargs)

        return wrapper

    for name in ("rename", "fsync", "unlink", "mkdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: came >= count


def test_a_cut_between_any_two_operations_leaves_the_old_or_the_new(states, monkeypatch, tmp_path):
    for number in range(1, 100):
        states = StateDirectory(tmp_path / str(number))
        states.put("web", AppState(URI))
        with monkeypatch.context() as patch:
            came = cutting(patch, number)
            with contextlib.suppress(Cut):
                states.put("web", AppState(OTHER))
            ended = not came()
        for spoilt in ("", sealed.COPIES):
            place = states.root / spoilt / "apps" / "web.json"
            kept = place.read_bytes() if place.exists() else None
            place.write_bytes(b"")
            found = states.find("web")
            # With one of the two damaged afterwards, too.
            assert found.value is not None and found.value.uri in (URI, OTHER), (number, spoilt)
            if kept is not None:
                place.write_bytes(kept)
        assert states.get("web").uri in (URI, OTHER)
        if ended:
            assert states.get("web").uri == OTHER
            return
    raise AssertionError("it does not come to its end")


def test_a_removal_that_is_cut_off_leaves_it_removed_or_not(tmp_path, monkeypatch):
    for number in range(1, 20):
        states = StateDirectory(tmp_path / str(number))
        journal.write(states, journal.new("web", URI, OTHER), step=journal.COMMITTED)
        with monkeypatch.context() as patch:
            came = cutting(patch, number)
            with contextlib.suppress(Cut):
                journal.remove(states, "web")
            done = not came()
        left = journal.find(states, "web")
        assert not left.lost
        path = journal.path_of(states, "web")
        assert (left.value is None) == (not path.exists())
        if done:
            assert left.value is None
            return


def test_a_disk_with_room_for_one_has_the_new_record_and_no_old_copy(states, monkeypatch):
    states.put("web", AppState(URI))
    write = durable.write_file

    def full(path, data, mode=0o644):
        if sealed.COPIES in path.parts:
            raise OSError(errno.ENOSPC, "full")
        write(path, data, mode)

    monkeypatch.setattr(durable, "write_file", full)
    states.put("web", AppState(OTHER))
    assert states.get("web").uri == OTHER
    (states.root / "apps" / "web.json").write_bytes(b"")
    assert states.find("web").lost


def test_a_file_system_that_refuses_leaves_what_was(states, monkeypatch):
    states.put("web", AppState(URI))

    def refusing(_temporary, _target, *_how):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(durable, "replace", refusing)
    with pytest.raises(StorageError, match="read-only"):
        states.put("web", AppState(OTHER))
    assert states.get("web").uri == URI
