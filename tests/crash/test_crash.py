# SPDX-License-Identifier: MIT
"""The crash harness: its parts are true, it finds what stock dockerd does, and the product heals."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import hostsetup
from crash import blocklog, disks, namespaces, replay, states
from crash.errors import CrashError
from crash.recorder import Recorder

SECTOR = 512


def _entry(sector, data=b"", flags=0, sectors=None, length=0):
    sectors = len(data) // SECTOR if sectors is None else sectors
    return struct.pack("<QQQQ", sector, sectors, flags, length).ljust(SECTOR, b"\0") + data


def _log(path, *entries):
    """A log whose superblock, as after a kill, knows of no entry."""
    head = struct.pack("<QQQI", blocklog.MAGIC, 1, 0, SECTOR).ljust(SECTOR, b"\0")
    path.write_bytes(head + b"".join(entries) + bytes(2 * SECTOR))
    return path


def _block(letter, sectors=1):
    return letter.encode() * (SECTOR * sectors)


@pytest.fixture
def small(tmp_path):
    """A base of 16 sectors and a log with two flushes: (base, log)."""
    base = tmp_path / "base.img"
    base.write_bytes(_block("-", 16))
    log = _log(
        tmp_path / "log.img",
        _entry(0, _block("a", 2)), _entry(4, _block("b")), _entry(0, flags=blocklog.FLUSH),
        _entry(1, _block("c")), _entry(8, _block("d", 4)), _entry(4, _block("e")), _entry(0, flags=blocklog.FLUSH),
        _entry(0, _block("f")), _entry(4, flags=blocklog.DISCARD, sectors=1))
    return base, log


def _disk(small, name, tmp_path):
    """The disk of a state, a letter a sector."""
    with blocklog.BlockLog(small[1]) as log, replay.Replay(small[0], log, tmp_path) as disk:
        disk.make(states.Enumeration(log.entries).parse(name), tmp_path / "state.img")
    data = (tmp_path / "state.img").read_bytes()
    return "".join(chr(data[place] or ord("0")) for place in range(0, len(data), SECTOR))


def test_log_is_read_to_the_first_header_of_zeros(small):
    with blocklog.BlockLog(small[1]) as log:
        assert [(each.start, each.length, each.flags) for each in log.entries[:3]] == [
            (0, 1024, 0), (2048, 512, 0), (0, 0, blocklog.FLUSH)]
        assert len(log.entries) == 9
        assert log.content(log.entries[4]) == _block("d", 4)
        assert log.content(log.entries[8]) == bytes(SECTOR)


def test_log_is_read_on_while_it_grows(tmp_path):
    path = _log(tmp_path / "log.img", _entry(3, _block("a")))
    with blocklog.BlockLog(path) as log:
        assert len(log.entries) == 1
        with open(path, "r+b") as stream:
            stream.seek(SECTOR * 3)
            stream.write(_entry(5, _block("b")))
        assert log.read_on() == 2
        assert log.content(log.entries[1]) == _block("b")


def test_marks_are_no_writes(tmp_path):
    text = b"phase".ljust(SECTOR, b"\0")
    path = _log(tmp_path / "log.img", _entry(0, text, blocklog.MARK, sectors=0, length=5), _entry(3, _block("a")))
    with blocklog.BlockLog(path) as log:
        assert [each.changes for each in log.entries] == [False, True]


@pytest.mark.parametrize("content, says", [
    (b"no log at all".ljust(1024), "is no log of block writes"),
    (struct.pack("<QQQI", blocklog.MAGIC, 1, 0, SECTOR).ljust(SECTOR, b"\0") + b"\xff" * 512, "is no entry of a log"),
])
def test_what_is_no_log_is_refused(tmp_path, content, says):
    path = tmp_path / "log.img"
    path.write_bytes(content)
    with pytest.raises(CrashError, match=says), blocklog.BlockLog(path):
        pass


@pytest.mark.parametrize("name, disk", [
    ("entry=0", "----------------"),
    ("entry=1", "aa--------------"),
    ("flush=1", "aa--b-----------"),
    ("flush=2", "ac--e---dddd----"),
    ("entry=9", "fc--0---dddd----"),
    ("flush=1:until=6:drop=0", "aa--e---dddd----"),
    ("flush=1:until=6:drop=1", "ac--e-----------"),
    ("flush=1:until=6:keep=1", "aa--b---dddd----"),
    ("flush=1:until=5:drop=1", "ac--b-----------"),
    ("flush=0:until=2:keep=1", "----b-----------"),
])
def test_states_are_what_their_names_say(small, tmp_path, name, disk):
    assert _disk(small, name, tmp_path) == disk


@pytest.mark.parametrize("name", ["flush=3", "entry=10", "flush=1:until=6:drop=3", "flush=1:until=3:keep=0", "tail=1",
                                  "flush=1:until=6:torn=", "flush=2:until=99"])
def test_states_that_a_log_does_not_have_are_refused(small, name):
    with blocklog.BlockLog(small[1]) as log, pytest.raises(CrashError, match=re.escape(name)):
        states.Enumeration(log.entries).parse(name)


def test_torn_writes_have_some_sectors_old_and_some_new(small, tmp_path):
    seen = {_disk(small, f"flush=1:until=6:torn={seed}", tmp_path) for seed in range(60)}
    wide = {disk[8:12] for disk in seen}
    assert {"----", "dddd"} < wide and len(wide) > 6
    # What was flushed before is there in all of them.
    assert all(disk[0] == "a" and disk[4] in "be" for disk in seen)


def test_written_through_writes_survive_each_cut(tmp_path):
    base = tmp_path / "base.img"
    base.write_bytes(_block("-", 4))
    log = _log(tmp_path / "log.img", _entry(0, _block("a"), blocklog.FUA), _entry(1, _block("b")))
    for name in ("flush=0:until=2:drop=0", "flush=0:until=2:keep=1", "flush=0:until=2:random=1"):
        assert _disk((base, log), name, tmp_path)[0] == "a"


def test_chosen_states_differ_and_come_out_the_same_again(small, tmp_path):
    def choose(seed):
        with blocklog.BlockLog(small[1]) as log, replay.Replay(small[0], log, tmp_path) as disk:
            return states.choose(disk, states.Enumeration(log.entries), 12, seed)

    chosen = choose("one")
    disks_of = {state.name: _disk(small, state.name, tmp_path) for state, _ in chosen}
    assert len(chosen) == 12 == len(set(disks_of.values()))
    assert chosen == choose("one") != choose("two")


def test_fingerprint_depends_on_the_bytes_alone(tmp_path):
    paths = []
    for name in ("one.img", "two.img"):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(_block("-", 8))
    with replay.Image(paths[0]) as one, replay.Image(paths[1]) as two:
        one.write(0, _block("a", 2))
        one.write(SECTOR, _block("b"))
        two.write(SECTOR, _block("b"))
        assert one.fingerprint != two.fingerprint
        two.write(0, _block("a"))
        assert one.fingerprint == two.fingerprint != 0
        one.write(0, _block("-", 2))
        assert one.fingerprint == 0


def _digest(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _record_and_replay(engine):
    """Write through a Recorder and return the digests of the disk and of its replay, and a few facts."""
    image, base = namespaces.HOME / "disk.img", namespaces.HOME / "base.img"
    disks.make(image)
    disks.copy(image, base)
    recorder = Recorder(engine.qemu, image, namespaces.HOME)
    with recorder as layout:
        recorder.mark("work")
        for number in range(40):
            path = layout.root / f"file{number}"
            path.write_bytes(bytes([number]) * 5000)
        subprocess.run(["sync", "--file-system", layout.root], check=True)
        recorder.mark("after")
    with blocklog.BlockLog(recorder.log_path) as log:
        with replay.Replay(base, log, namespaces.HOME) as disk:
            disk.forward(len(log.entries))
            replayed = _digest(namespaces.HOME / "replay.img")
        return {"disk": _digest(image), "replayed": replayed, "base": _digest(base), "read": recorder.log.entries,
                "entries": log.entries, "marks": recorder.marks}


@pytest.mark.root
def test_replay_of_a_whole_log_is_the_recorded_disk(stock_engine):
    found = namespaces.isolated(_record_and_replay, stock_engine)
    assert found["replayed"] == found["disk"] != found["base"]
    assert found["read"] == found["entries"] and any(each.flushes for each in found["entries"])
    (first, _), (second, _) = found["marks"]
    assert 0 < first < second < len(found["entries"])


@pytest.mark.root
def test_nothing_is_left_behind(stock_engine):
    # A name of its own: other runs of the harness on this machine have their devices, too.
    place = namespaces.HOME / f"left-behind-{os.getpid()}"

    def fail():
        place.mkdir()
        disks.make(place / "disk.img")
        with Recorder(stock_engine.qemu, place / "disk.img", place):
            raise CrashError("on purpose")

    with pytest.raises(CrashError, match="on purpose"):
        namespaces.isolated(fail)
    devices = ["losetup", "--all", "--noheadings", "--output", "BACK-FILE"]
    assert place.name not in subprocess.run(devices, capture_output=True, text=True, check=True).stdout
    assert str(namespaces.HOME) not in Path("/proc/self/mountinfo").read_text()


def _crash_test(*words):
    """Run the command; return (exit status, its last line as numbers, all outcomes, standard error)."""
    command = [sys.executable, hostsetup.TOP / "scripts" / "crash-test", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *lines, last = done.stdout.splitlines() or [""]
    match = re.fullmatch(r"states=(\d+) unhealed=(\d+) silent=(\d+)", last)
    assert match, done.stderr
    document = json.loads(next(line for line in lines if line.startswith("{")))
    return done.returncode, dict(zip(("states", "unhealed", "silent"), map(int, match.groups()), strict=True)), document


@pytest.mark.root
@pytest.mark.slow
def test_stock_dockerd_loses_contents_silently():
    """The control: a harness that finds nothing here would prove nothing elsewhere."""
    status, counted, document = _crash_test(
        "--engine", "stock", "--no-fsck", "--workload", "load", "--states", "12", "--seed", "control")
    assert status == 1 and counted["states"] == 12
    assert counted["unhealed"] >= counted["silent"] > 0
    silent = [each for each in document["outcomes"] if each["verdict"] == "silent"]
    assert all("A" in each["cut"] for each in silent)
    # Kept, and the same once more.
    status, again, _ = _crash_test("--no-fsck", "--replay", silent[0]["state"])
    assert (status, again) == (1, {"states": 1, "unhealed": 1, "silent": 1})


@pytest.mark.root
@pytest.mark.slow
def test_agent_leaves_old_or_new():
    """Needs no dockerd: what the agent writes by itself."""
    words = [word for name in ("bundle", "states", "records", "restore") for word in ("--workload", name)]
    status, counted, _ = _crash_test("--engine", "stock", "--no-fsck", *words, "--states", "40", "--seed", "agent")
    assert (status, counted) == (0, {"states": 40, "unhealed": 0, "silent": 0})


@pytest.mark.root
@pytest.mark.slow
def test_patched_dockerd_and_fsck_heal_each_state():
    status, counted, _ = _crash_test("--states", "40", "--seed", "sample")
    assert (status, counted) == (0, {"states": 40, "unhealed": 0, "silent": 0})
