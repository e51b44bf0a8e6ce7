# SPDX-License-Identifier: MIT
"""The versions that a device has met: what one more writes, and what cuts, damage and older agents leave of them."""

import json

import pytest

from composeapps.records import preloaded, repair, sealed
from composeapps.records.state import StateDirectory
from support.measured import moved


def uri(number, app="web"):
    return f"hub.demo.test/factory/{app}@sha256:{number:064x}"


@pytest.fixture
def states(tmp_path):
    return StateDirectory(tmp_path / "state")


def met(states, app="web"):
    return (preloaded.find(states).value or {}).get(app, [])


def test_versions_write_as_much_in_all_after_many_as_after_few(states):
    def more(first, count):
        return moved(lambda: [preloaded.note(states, f"a{number % 10}", uri(number))
                                for number in range(first, first + count)])

    few, many = more(0, 60), more(60, 600)
    assert many < 12 * few and sum(len(met(states, f"a{number}")) for number in range(10)) == 660


def test_a_version_that_is_known_writes_nothing(states):
    preloaded.note(states, "web", uri(1), uri(2))
    assert moved(lambda: preloaded.note(states, "web", uri(2), uri(1))) == 0
    assert met(states) == [uri(1), uri(2)]


def test_the_newest_are_kept(states):
    for number in range(450):
        preloaded.note(states, "web", uri(number))
    assert met(states)[-1] == uri(449) and 200 <= len(met(states)) <= 2 * 200 + 1


def test_an_older_agent_finds_the_older_half_and_its_additions_are_found(states):
    for number in range(10):
        preloaded.note(states, "web", uri(number))
    known = json.loads((states.root / preloaded.RECORD).read_bytes())["known"]["web"]
    assert known == [uri(number) for number in range(len(known))] and len(known) >= 5
    sealed.write(states.root, preloaded.RECORD, sealed.dump({"known": {"web": [*known, uri(99)]}}))
    assert set(met(states)) == {*map(uri, range(10)), uri(99)}
    preloaded.note(states, "web", uri(100))
    assert uri(99) in met(states) and uri(100) in met(states)


@pytest.mark.parametrize("record", [preloaded.RECORD, preloaded.ADDED])
def test_what_is_lost_is_lost_until_it_is_noted_anew(states, record):
    for number in range(4):
        preloaded.note(states, "web", uri(number))
    assert (states.root / record).exists()
    for place in (states.root / record, sealed.copy_of(states.root, record)):
        place.write_bytes(b"\0" * 40)
    assert preloaded.find(states).lost
    repair.repair(states)
    assert preloaded.find(states).lost
    preloaded.note(states, "web", uri(3))
    assert not preloaded.find(states).lost and uri(3) in met(states)


@pytest.mark.parametrize("record", [preloaded.RECORD, preloaded.ADDED])
@pytest.mark.parametrize("which", ["file", "copy"])
def test_one_damaged_file_costs_nothing(states, record, which):
    for number in range(4):
        preloaded.note(states, "web", uri(number))
    place = states.root / record if which == "file" else sealed.copy_of(states.root, record)
    place.write_bytes(place.read_bytes()[:-30] + b"\n")
    assert met(states) == list(map(uri, range(4))) and not preloaded.find(states).lost
    assert any(record in note for note in repair.repair(states)) and preloaded.find(states).problem == ""
    assert (states.root / record).read_bytes() == sealed.copy_of(states.root, record).read_bytes()


def test_a_cut_between_the_record_and_the_lines_loses_and_doubles_nothing(states, monkeypatch):
    class Cut(BaseException):
        pass

    def cut(*_words):
        raise Cut

    preloaded.note(states, "web", uri(0))
    preloaded.note(states, "web", uri(1))
    monkeypatch.setattr(sealed, "remove", cut)
    with pytest.raises(Cut):
        preloaded.note(states, "web", uri(2))
    monkeypatch.undo()
    assert met(states) == [uri(0), uri(1), uri(2)]
    preloaded.note(states, "web", uri(3))
    assert met(states) == [uri(0), uri(1), uri(2), uri(3)]
