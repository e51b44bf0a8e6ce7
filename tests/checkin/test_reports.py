# SPDX-License-Identifier: MIT
"""What waits to be told: kept over cuts and full disks, in order, told until the server has answered."""

import errno
import json
import os
import re
import socket

import pytest

from composeapps.delivery import posting
from composeapps.delivery.gateway import Gateway, Refused
from composeapps.errors import RegistryError, StorageError
from composeapps.records import journald, lines, reports, sealed
from support.updateserver import status

ULID = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")


def _some(count, **more):
    return [reports.event(reports.DOWNLOAD_STARTED, f"c{number}", f"lmp-{number}", number, **more)
            for number in range(count)]


def _names(found):
    return [each["event"]["targetName"] for each in found]


def test_a_correlation_id_is_the_same_whenever_it_is_asked_for():
    assert ULID.fullmatch(reports.correlation(1.5, "ab"))
    assert reports.correlation(1.5, "ab") == reports.correlation(1.5, "ab")
    assert len({reports.correlation(1.5, "ab"), reports.correlation(1.5, "ac"), reports.correlation(2.5, "ab")}) == 3
    # As texts they are in the order of time.
    assert reports.correlation(1.0, "z") < reports.correlation(2.0, "a")
    for odd in (-5.0, 0, 1e30):
        assert ULID.fullmatch(reports.correlation(odd, ""))


def test_an_event_has_the_form_that_the_server_takes():
    found = reports.event(reports.INSTALLATION_COMPLETED, "c1", "lmp-7", 7, False, {"reason": "ä" * 5000})
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", found["id"])
    assert found["event"]["version"] == "7" and found["event"]["success"] is False
    assert len(found["event"]["details"].encode()) <= 2048
    assert "success" not in reports.event(reports.APPLIED, "c1")["event"]


def test_events_are_kept_in_order_once_and_forgotten_when_told(tmp_path):
    assert not reports.are_waiting(tmp_path) and reports.waiting(tmp_path) == []
    events = _some(3)
    reports.append(tmp_path, *events)
    reports.append(tmp_path, *_some(2))
    assert reports.waiting(tmp_path) == events and reports.are_waiting(tmp_path)
    reports.told(tmp_path, events[:2])
    assert reports.waiting(tmp_path) == events[2:]
    reports.told(tmp_path, events[2:])
    assert not reports.are_waiting(tmp_path)


def test_months_offline_keep_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "MOST", 5)
    for each in _some(60):
        reports.append(tmp_path, each)
    assert _names(reports.waiting(tmp_path)) == [f"lmp-{number}" for number in range(55, 60)]
    assert (tmp_path / reports.RECORD).stat().st_size < 60 * 300


def test_a_cut_or_damage_loses_no_event_that_was_kept(tmp_path):
    events = _some(4)
    reports.append(tmp_path, *events)
    for path in (tmp_path / reports.RECORD, sealed.copy_of(tmp_path, reports.RECORD)):
        whole = path.read_bytes()
        for damaged in (whole[:-20], b"", b"\0" * len(whole), whole.replace(b"lmp-2", b"lmp-9")):
            path.write_bytes(damaged)
            assert reports.waiting(tmp_path) == events
        path.unlink()
        assert reports.waiting(tmp_path) == events and reports.are_waiting(tmp_path)
        path.write_bytes(whole)


def test_a_full_disk_costs_the_event_and_nothing_else(tmp_path, monkeypatch):
    reports.append(tmp_path, *_some(1))
    kept, told = reports.waiting(tmp_path), []

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lines, "_write", full)
    monkeypatch.setattr(lines, "_add_to", full)
    with pytest.raises(StorageError):
        reports.append(tmp_path, *_some(2))
    reports.Reporter(tmp_path, told.append).tell(reports.APPLIED, "c9")
    assert len(told) == 1 and "full" in told[0]
    assert reports.waiting(tmp_path) == kept
    # What needs no room still goes.
    reports.told(tmp_path, kept)
    assert not reports.are_waiting(tmp_path)


def test_an_event_is_found_in_the_journal_by_its_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "journal"))
    reporter = reports.Reporter(tmp_path, print)
    reporter.tell(reports.APPLIED, "c0", "lmp-6", 6)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(journald.SOCKET)
        listening.settimeout(10)
        reporter.tell(reports.INSTALLATION_COMPLETED, "c1", "lmp-7", 7, False,
                      "bad\nPRIORITY=0\nMESSAGE=forged " + "x" * 9000)
        written = listening.recv(65536).decode().splitlines()
    found = dict(line.split("=", 1) for line in written)
    assert len(found) == len(written) and found["PRIORITY"] == "4"
    assert found["MESSAGE"] == "EcuInstallationCompleted lmp-7: failed" and found["SYSLOG_IDENTIFIER"] == "composeapps"
    assert (found["COMPOSEAPPS_TARGET"], found["COMPOSEAPPS_CORRELATION"], found["COMPOSEAPPS_SUCCESS"]) == (
        "lmp-7", "c1", "False")
    assert len(reports.waiting(tmp_path)) == 2


@pytest.fixture
def asking(config):
    with Gateway(config, timeout=2) as found:
        yield found


def test_the_server_gets_them_in_order_and_in_parts(asking, server, config):
    reports.append(config.state_dir, *_some(120, details="x" * 1500))
    told = []
    assert posting.events(asking, config.state_dir, told.append)
    assert _names(server.events["device-1"]) == [f"lmp-{number}" for number in range(120)]
    assert not reports.are_waiting(config.state_dir) and not told
    assert max(len(request.body) for request in server.requests) <= 100_000 and server.connections == 1
    assert posting.events(asking, config.state_dir, told.append) and len(server.requests) == 3


def test_what_fails_stays_and_what_is_bad_goes_alone(asking, server, config):
    reports.append(config.state_dir, *_some(4))
    server.misbehave("/events", status(503, "later"))
    with pytest.raises(RegistryError):
        posting.events(asking, config.state_dir, print)
    server.misbehave("/events", status(403, "no"))
    with pytest.raises(Refused):
        posting.events(asking, config.state_dir, print)
    server.misbehave("/events", status(404, "not here"))
    assert posting.events(asking, config.state_dir, print) is False
    assert len(reports.waiting(config.state_dir)) == 4

    def picky(handler):
        request = server.requests[-1]
        if any(each["event"]["targetName"] == "lmp-1" for each in request.json):
            handler.answer(400, b"bad", "text/plain")
        else:
            handler._events(request, request.device)

    server.misbehave("/events", picky)
    told = []
    assert posting.events(asking, config.state_dir, told.append)
    assert _names(server.events["device-1"]) == ["lmp-0", "lmp-2", "lmp-3"]
    assert len(told) == 1 and not reports.are_waiting(config.state_dir)


def test_what_the_device_is_is_told_when_it_changes(asking, server, monkeypatch):
    memory = {}
    posting.device(asking, memory)
    told = server.told["device-1"]
    assert {"hostname", "mac", "local_ipv4"} == json.loads(told["/system_info/network"]).keys()
    assert json.loads(told["/system_info"])["architecture"] == os.uname().machine
    posting.device(asking, memory)
    assert len(server.requests) == 2
    monkeypatch.setattr(posting, "_network", lambda host: {"hostname": "other", "mac": "", "local_ipv4": ""})
    posting.device(asking, memory)
    assert len(server.requests) == 3 and b"other" in server.told["device-1"]["/system_info/network"]
