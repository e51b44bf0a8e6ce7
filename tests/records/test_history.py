# SPDX-License-Identifier: MIT
"""The record of the last updates: what it keeps, what survives damage and a full disk, what the command shows."""

import json

import pytest

from composeapps.cli.main import main
from composeapps.records import history
from composeapps.records.state import StateDirectory

URI = "hub.demo.test/factory/web@sha256:" + "ab" * 32


@pytest.fixture
def states(tmp_path):
    return StateDirectory(tmp_path / "state")


def add(states, app="web", **values):
    history.append(states, {"app": app, "action": "update", "target": URI, "result": "committed", **values})


def test_entries_come_back_in_order_with_the_time(states):
    add(states, source="")
    add(states, "db", result="failed", reason="the registry\ndoes not answer", code=5)
    first, second = history.entries(states)
    assert (first["app"], first["target"], second["reason"], second["code"]) == (
        "web", URI, "the registry\ndoes not answer", 5)
    assert first["time"].endswith("Z") and len(first["time"]) == 20
    assert [entry["app"] for entry in history.entries(states, "db")] == ["db"]


def test_what_is_told_again_of_one_update_takes_the_place_of_what_was_told_before(states):
    add(states, started=1.5, result="failed", reason="no network")
    add(states, "db", started=1.5)
    add(states, started=1.5, result="failed", reason="no space")
    assert [(entry["app"], entry.get("reason")) for entry in history.entries(states)] == [
        ("db", None), ("web", "no space")]
    add(states, started=1.5)
    add(states, started=1.5)
    add(states, started=2.5)
    add(states, started=2.5, result="rolled-back")
    assert [(entry["app"], entry["started"], entry["result"]) for entry in history.entries(states)] == [
        ("db", 1.5, "committed"), ("web", 1.5, "failed"), ("web", 1.5, "committed"), ("web", 2.5, "committed"),
        ("web", 2.5, "rolled-back")]


def test_one_app_that_fails_for_ever_does_not_push_out_the_others(states):
    add(states, "quiet")
    for number in range(history.KEEP_APP + 5):
        add(states, "noisy", result="failed", attempt=number)
    assert [entry["app"] for entry in history.entries(states)].count("noisy") == history.KEEP_APP
    assert history.entries(states, "quiet")
    assert history.entries(states, "noisy")[-1]["attempt"] == history.KEEP_APP + 4


def test_a_long_reason_does_not_make_the_file_long(states):
    add(states, result="failed", reason="x" * 10**6)
    assert history.path(states).stat().st_size < 10**4


@pytest.mark.parametrize("damage", [
    b"\xff\x00\xfe\n", b"[1]\n", b'{"app": 3}\n', b'{"app": "web", "resu\n', b"[" * 100000 + b"\n"])
def test_what_is_damaged_is_left_out_and_said(states, damage):
    add(states)
    with open(history.path(states), "ab") as stream:
        stream.write(damage)
    entries, problem = history.read(states)
    assert len(entries) == 1 and str(history.path(states)) in problem and "damaged" in problem
    add(states, "db")
    assert [entry["app"] for entry in history.read(states)[0]] == ["web", "db"] and history.read(states)[1] == ""


def test_a_history_that_cannot_be_written_is_said(states):
    states.root.write_text("a file in the directory's place")
    notes = []
    history.append(states, {"app": "web", "result": "committed"}, notes.append)
    assert len(notes) == 1 and "history" in notes[0] and history.entries(states) == []


def test_a_directory_in_the_place_of_the_history_is_replaced(states):
    history.path(states).mkdir(parents=True)
    add(states)
    assert len(history.entries(states)) == 1 and history.read(states)[1] == ""


def test_the_command_lists_the_last_ones(states, capsys):
    for number in range(3):
        add(states, attempt=number)
    add(states, "db", result="rolled-back", reason="service db is unhealthy", source=URI)
    base = ["--state-dir", str(states.root), "history"]
    assert main([*base, "-n", "2", "--json"]) == 0
    assert [entry["app"] for entry in json.loads(capsys.readouterr().out)] == ["web", "db"]
    assert main([*base, "web", "-n", "0", "--json"]) == 0
    assert [entry["attempt"] for entry in json.loads(capsys.readouterr().out)] == [0, 1, 2]
    assert main(base) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:4] == ["TIME", "APP", "ACTION", "RESULT"] and len(table) == 5
    assert "service db is unhealthy" in table[-1] and "abababababab" in table[-1]
    assert main(["--state-dir", str(states.root / "none"), "history", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_command_tells_of_damage_and_shows_the_rest(states, capsys):
    add(states)
    with open(history.path(states), "ab") as stream:
        stream.write(b"garbage\n")
    assert main(["--state-dir", str(states.root), "history", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 1 and "damaged" in err


@pytest.mark.parametrize("number", ["-1", "x", ""])
def test_a_number_that_is_none_is_refused(number, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["history", f"-n{number}" if number else "-n="])
    assert ended.value.code == 2 and "number" in capsys.readouterr().err
