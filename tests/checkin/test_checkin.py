# SPDX-License-Identifier: MIT
"""A check-in without dockerd: what is asked, chosen, told and written, and how it ends when something is wrong."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from composeapps import durable
from composeapps.cli.main import main
from composeapps.delivery import checkin, memory, record, window
from composeapps.delivery.checkin import CheckIn
from composeapps.delivery.memory import Memory
from composeapps.delivery.trust import TrustError
from composeapps.errors import ComposeAppsError, LockedError, NotFoundError, RegistryError, UsageError
from composeapps.records import journal, lock, reports
from composeapps.records.state import AppState
from composeapps.update.parts import Parts
from support import pki
from support.metadata import DIGEST, Repository, text
from support.updateserver import drop, endless, hang, status

HARDWARE = "intel-corei7-64"


class Device:
    """A device whose server has a repository of the update server's dialect."""

    def __init__(self, config, server):
        self.config, self.server, self.told = config, server, []
        self.repository = Repository("ats", pki.now())
        config.root_dir.mkdir()
        (config.root_dir / "1.root.json").write_bytes(self.repository.files["1.root.json"])
        self.publish(1)

    def publish(self, *versions, **more):
        for each in versions:
            self.repository.add(each, hardware=(HARDWARE,), **more)
        self.repository.publish()
        self.server.roll_out("device-1", "main", "update", self.repository.files)

    def installed(self, name, version, tag="main"):
        """Have a Target installed, with the apps that all of them have."""
        uri = f"hub.example.com/factory/shop@{DIGEST}"
        parts = Parts(self.config)
        record.write(parts, record.Record(record.Installed(name, version, tag, {"shop": uri})))

    def check(self, *installed, **options):
        """Check in with a Target installed, where one is given; return what was Found."""
        if installed:
            self.installed(*installed)
        parts = Parts(self.config, self.told.append)
        with parts.locked(), CheckIn(parts, **options) as check:
            return check.look()

    def reported(self):
        return self.server.reported("device-1")


@pytest.fixture
def device(config, server, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "RUNTIME", tmp_path / "run")
    return Device(config, server)


def test_the_newest_target_for_the_device_is_found_and_told(device, server):
    device.publish(5, 3)
    device.repository.add(9, hardware=("raspberrypi4-64",))
    device.repository.add(8, hardware=(HARDWARE,), tags=("devel",))
    device.publish()
    assert device.check().target.name == "device-5"
    assert device.reported() == [reports.METADATA]
    event, = server.events["device-1"]
    assert event["event"]["correlationId"].startswith("meta-") and event["event"]["success"] is True
    assert server.connections == 1
    assert set(server.told["device-1"]) == {"/system_info", "/system_info/network"}
    # Again: nothing has changed, and nothing is told.
    before = len(server.requests)
    assert device.check("device-5", 5).sentence == "nothing new: Target device-5 is installed"
    assert server.paths()[before:] == ["GET /repo/2.root.json", "GET /repo/timestamp.json"]
    assert server.requests[-1].headers["x-ats-target"] == "device-5"


def test_no_older_target_is_taken_by_itself(device):
    found = device.check("device-4", 4)
    assert found.target is None and "is older: it is not installed by itself" in found.sentence
    # After a change of tag versions begin anew.
    assert device.check("other-40", 40, "devel").target.name == "device-1"
    # Who names it, wants it.
    assert device.check("device-4", 4, target="device-1").target.name == "device-1"
    with pytest.raises(NotFoundError, match="has signed no Target 'device-7'"):
        device.check(target="device-7")
    device.repository.add(6, hardware=("raspberrypi4-64",))
    device.publish()
    with pytest.raises(UsageError, match="is for other devices"):
        device.check(target="device-6")


def test_the_target_that_was_preloaded_counts_as_long_as_nothing_else_was_installed(device, server, config):
    apps = {app: uri for each in [device.repository.targets["targets"]["device-1"]["custom"]]
            for app, uri in ((app, entry["uri"]) for app, entry in each["docker_compose_apps"].items())}

    def preload(value):
        config.factory_file.write_text(json.dumps({"apps": apps, "target": value}))

    preload({"name": "device-5", "version": 5})
    found = device.check()
    assert found.target is None and "is older: it is not installed by itself" in found.sentence
    assert server.requests[-1].headers["x-ats-target"] == "device-5"
    preload({"name": "device-1", "version": 1})
    assert device.check().sentence == "nothing new: Target device-1 is installed"
    for odd in (None, {}, "device-5", {"name": "", "version": 5}, {"name": "x", "version": "5"},
                {"name": 5, "version": 5}):
        preload(odd)
        assert device.check().target.name == "device-1"
    # What was installed since counts.
    preload({"name": "device-5", "version": 5})
    assert device.check("device-0", 0).target.name == "device-1"


def test_nothing_for_the_device_is_no_error(device, server):
    server.rollouts.clear()
    assert device.check().sentence == "the factory has nothing for this device"
    device.config = device.config._replace(hardware_id="other")
    device.publish(2)
    assert "nothing is for this device" in device.check().sentence


def test_what_is_not_believed_is_told_once_and_ends_the_check_in(device, server, config):
    assert device.check().target
    good = dict(device.repository.files)
    forged = Repository("ats", pki.now(), name="forged")
    forged.add(9, hardware=(HARDWARE,))
    forged.publish()
    server.roll_out("device-1", "main", "update", {**good, "timestamp.json": forged.files["timestamp.json"]})
    for _each in range(2):
        with pytest.raises(TrustError):
            device.check(now=True)
    events = [each["event"] for each in server.events["device-1"]]
    assert [each["success"] for each in events] == [True, False] and "timestamp" in events[1]["details"]
    server.roll_out("device-1", "main", "update", good)
    assert device.check(now=True).target.name == "device-1"


def test_metadata_that_ended_is_told_once_and_not_at_each_check_in(device, server):
    # The sentence has times in it.
    for days in (1, 2):
        device.repository.timestamp["expires"] = text(pki.now() - days * pki.DAY)
        device.publish(2)
        with pytest.raises(TrustError, match="it ended at"):
            device.check(now=True)
    assert device.reported() == [reports.METADATA]


@pytest.mark.parametrize("how", [endless, drop, status(502, "Key rotation is not supported"), status(302, Location="/"),
                                 status(200, "nonsense"), status(200, "{}"), status(403, "no")], ids=range(7))
def test_a_server_of_nonsense_costs_a_sentence_and_the_next_check_in_waits(device, server, how):
    server.misbehave("/repo/timestamp", how)
    with pytest.raises(ComposeAppsError):
        device.check()
    remembered = Memory(device.config.state_dir)
    assert remembered["failures"] == 1 and 25 < remembered.wait() <= 95
    with pytest.raises(ComposeAppsError):
        device.check(now=True)
    assert Memory(device.config.state_dir)["failures"] == 2
    server.behave()
    assert device.check(now=True).target.name == "device-1"
    assert not Memory(device.config.state_dir).wait()


def test_a_server_may_ask_for_more_time(device, server):
    server.misbehave("/repo/timestamp", status(503, "later", Retry_After="5000"))
    with pytest.raises(RegistryError):
        device.check()
    assert 4900 < Memory(device.config.state_dir).wait() <= 5000


def test_pauses_grow_to_hours_and_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "RUNTIME", tmp_path)
    remembered = Memory("/state")
    for _each in range(100):
        remembered.failed()
    assert 3 * 3600 - 60 < remembered.wait() <= 9 * 3600
    remembered.save()
    assert Memory("/state")["failures"] == 100 and Memory("/other") == {}
    for damaged in (b"", b"[]", b"\xff", b'{"next": "soon"}', b"[" * 100_000):
        remembered._path.write_bytes(damaged)
        assert not Memory("/state").wait()


def test_two_check_ins_at_once_are_one(device):
    parts = Parts(device.config)
    with CheckIn(parts), pytest.raises(LockedError), CheckIn(parts):
        pass


def test_a_server_of_static_files_is_not_told_again_and_again(device, server):
    server.misbehave("/(events|apps-states|system_info)", status(404, "not here"))
    device.check()
    before = len(server.requests)
    device.check("device-1", 1)
    assert len(server.requests) == before + 2 and len(reports.waiting(device.config.state_dir)) == 1


def test_reports_that_fail_stop_nothing(device, server):
    server.misbehave("/events", status(503, "later"))
    assert device.check().target.name == "device-1"
    assert any("is told at the next check-in" in text for text in device.told)
    server.behave()
    device.check("device-1", 1)
    assert device.reported() == [reports.METADATA]


def test_a_renewal_is_a_part_of_it(device, server, factory):
    factory.identity(device.config.identity_dir, "device-1", key=pki.key_of(device.config.identity_dir),
                     after=3 * pki.DAY)
    device.config = device.config._replace(renewal_server=f"{server.url}/.well-known/est")
    assert device.check().target
    assert device.reported()[0] == reports.ROTATION_STARTED and reports.ROTATION_COMPLETED in device.reported()
    before = len(server.requests)
    device.check("device-1", 1)
    assert len(server.requests) == before + 2


def test_a_renewal_that_cannot_be_written_down_keeps_no_update_away(device, server, factory, monkeypatch):
    factory.identity(device.config.identity_dir, "device-1", key=pki.key_of(device.config.identity_dir),
                     after=3 * pki.DAY)
    device.config = device.config._replace(renewal_server=f"{server.url}/.well-known/est")

    def write_file(path, *args, real=durable.write_file, **options):
        if path.parent == device.config.identity_dir:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(durable, "write_file", write_file)
    assert device.check().target.name == "device-1"
    assert any("certificate cannot be renewed now" in text for text in device.told)


def test_callbacks_surround_it(device, tmp_path, server):
    program = tmp_path / "callback"
    program.write_text(f'#!/bin/sh\necho "$MESSAGE $RESULT $INSTALL_TARGET_NAME" >> {tmp_path}/told\n')
    program.chmod(0o755)
    device.config = device.config._replace(callback_program=program)
    device.check()
    server.misbehave("/repo", status(502, "away"))
    with pytest.raises(RegistryError):
        device.check()
    told = (tmp_path / "told").read_text().splitlines()
    assert told == ["check-for-update-pre  ", "check-for-update-post OK device-1", "check-for-update-pre  ",
                    "check-for-update-post FAILED "]


def test_a_window_may_go_over_midnight(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    at = {hour: hour * 3600 for hour in range(24)}
    assert [hour for hour in at if window.is_open((22 * 60, 4 * 60), at[hour])] == [0, 1, 2, 3, 22, 23]
    assert [hour for hour in at if window.is_open((9 * 60, 11 * 60), at[hour])] == [9, 10]
    assert window.is_open(None) and window.words((22 * 60, 245)) == "22:00-04:05"


def test_outside_of_the_window_an_update_waits_when_fetched(device, monkeypatch):
    now = time.localtime()
    minute = now.tm_hour * 60 + now.tm_min
    closed, opened = ((minute + 120) % 1440, (minute + 180) % 1440), ((minute - 60) % 1440, (minute + 60) % 1440)

    def hold(window, **options):
        return CheckIn(Parts(device.config._replace(window=window)), **options).hold()

    assert (hold(None), hold(opened), hold(closed), hold(closed, now=True)) == ("", "", journal.FETCHED, "")
    # By a clock that cannot be right nobody knows what time it is.
    monkeypatch.setattr(checkin.clock, "now", lambda *floors: pki.now() + 900 * pki.DAY)
    assert hold(opened) == journal.FETCHED


@pytest.fixture
def command(device, tmp_path):
    """The arguments of a command of the device."""
    config = device.config
    (tmp_path / "config.toml").write_text(
        f'[pacman]\ntags = "main"\nreset_apps_root = "{config.store}"\ncompose_apps_root = "{config.compose_root}"\n'
        f'[composeapps]\nstate_dir = "{config.state_dir}"\nidentity_dir = "{config.identity_dir}"\n'
        f'docker_host = "{config.docker_host}"\nfactory_file = "{config.factory_file}"\n'
        f'factory_store = "{config.factory_store}"\n'
        f'[delivery]\nserver = "{config.server}"\nhardware_id = "{HARDWARE}"\nroot_dir = "{config.root_dir}"\n')
    return lambda *words: [*words, "--config", str(tmp_path / "config.toml")]


def test_the_command_says_what_it_found(device, command, server, capsys):
    device.installed("device-1", 1)
    assert main(command("update")) == 0
    assert capsys.readouterr().out == "nothing new: Target device-1 is installed\n"
    server.misbehave("/repo", status(502, "away"))
    assert main(command("update", "--json")) == 5
    result, = json.loads(capsys.readouterr().out)
    assert result["ok"] is False and "away" in result["error"]
    assert main(command("update")) == 0
    assert "'composeapps update --now' asks at once" in capsys.readouterr().out
    server.behave()
    assert main(command("update", "--now")) == 0
    for words in (("--now", "fetch"), ("--now", "--plan"), ("--target", "x", "hub.test/a/b@sha256:" + "0" * 64)):
        assert main(command("update", *words)) == 2


def test_a_lost_record_of_the_target_is_made_from_what_is_installed_and_signed(device, command, config, capsys):
    other = {"shop": f"hub.example.com/factory/shop@sha256:{'b' * 64}"}
    device.publish(4)
    device.repository.add(5, other, hardware=(HARDWARE,))
    device.publish()
    device.check()
    device.installed("device-4", 4)
    states = Parts(config).states
    states.put("shop", AppState(f"elsewhere.example.com/x/shop@{DIGEST}", {}, False, ""))
    for place in ("", "copies/"):
        (states.root / place / record.RECORD).write_bytes(b"\0" * 100)
    assert main(command("update", "--unfinished")) == 0
    assert "by what is installed it is device-4" in capsys.readouterr().err
    assert record.installed(states) == ("device-4", 4, "main")
    # What nobody signed is no Target.
    states.put("shop", AppState(f"hub.example.com/factory/shop@sha256:{'c' * 64}", {}, False, ""))
    for place in ("", "copies/"):
        (states.root / place / record.RECORD).write_bytes(b"")
    assert main(command("update", "--unfinished")) == 0
    assert "none of those that were signed" in capsys.readouterr().err
    assert record.find(states).value == record.Record()


def test_what_was_begun_before_there_was_a_factory_comes_when_it_is_signed_only(device, command, capsys):
    device.check()
    states = Parts(device.config).states
    for uri in (f"hub.example.com/factory/shop@{DIGEST}", f"hub.example.com/factory/evil@sha256:{'b' * 64}"):
        entry = journal.new(uri.rpartition("/")[2].partition("@")[0], "", uri)
        journal.write(states, entry, step=journal.FETCHED, hold=journal.FETCHED)
    assert main(command("update", "--unfinished", "--json")) == 17
    shop, evil = sorted(json.loads(capsys.readouterr().out), key=lambda each: each["app"], reverse=True)
    assert shop["ok"] and "of no Target that the factory signed" in evil["error"]
    assert [each.app for each in journal.pending(states)] == ["shop"]


def test_a_target_that_was_fetched_and_taken_back_is_given_up(device, command, capsys):
    device.installed("device-1", 1)
    parts, wanted = Parts(device.config), record.Installed("device-7", 7, "main", {
        "shop": f"hub.example.com/factory/shop@sha256:{'b' * 64}"})
    kept = record.read(parts.states)
    record.write(parts, kept._replace(rollout=record.Rollout(wanted, {"shop": ""})))
    entry = journal.new("shop", "", wanted.apps["shop"], hold=journal.FETCHED)
    journal.write(parts.states, entry, step=journal.FETCHED)
    # Who cannot be asked says nothing.
    device.server.misbehave("/repo", status(404, "nothing"))
    assert main(command("update")) == 0 and record.read(parts.states).rollout
    device.server.behave()
    # Its apps do not go on one by one.
    capsys.readouterr()
    assert main(command("update", "start", "--json")) != 0
    assert [each["app"] for each in json.loads(capsys.readouterr().out)] == ["shop"]
    assert main(command("update")) == 0
    assert "the factory has taken Target device-7 back" in capsys.readouterr().err
    assert record.read(parts.states) == kept and journal.pending(parts.states) == []


def _child(command, program, **environment):
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen([sys.executable, "-c", program, *command("update")], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, **environment})


_PROGRAM = """
import sys
from pathlib import Path
from composeapps.records import lock
lock.RUNTIME = Path(%r)
from composeapps.delivery import checkin
{}
from composeapps.cli.main import program
program()
"""


# What is not needed is not loaded: that is most of what a start costs.
_BARE = """
from composeapps.cli.main import main
status = main()
heavy = {"tuf", "cryptography", "subprocess", "composeapps.update.process", "composeapps.status.report"}
found = heavy & set(sys.modules)
sys.exit(f"loaded: {found}" if found else status)
"""


def test_nothing_new_costs_little_and_writes_nothing(device, command, server, tmp_path):
    """The bar of a check-in that finds nothing: one connection, two requests, few bytes, nothing on the flash."""
    device.check("device-1", 1)
    program = _PROGRAM.format("") % str(lock.RUNTIME)

    def tree():
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for place in (
            device.config.state_dir, device.config.identity_dir) for path in (place, *place.rglob("*"))}

    program = program.replace("from composeapps.cli.main import program\nprogram()", _BARE)
    for _each in range(2):
        server.connections = server.received = server.sent = 0
        before, written = len(server.requests), tree()
        child = _child(command, program)
        out, err = child.communicate()
        assert (child.returncode, out, err) == (0, "nothing new: Target device-1 is installed\n", "")
    assert server.connections == 1 and len(server.requests) - before == 2
    assert server.received + server.sent < 10_000
    assert tree() == written


def test_a_server_that_hangs_is_ended_by_the_watchdog(device, command, server):
    device.installed("device-1", 1)
    server.misbehave("/repo", hang)
    child = _child(command, _PROGRAM.format("checkin.WATCHDOG = 1") % str(lock.RUNTIME))
    _out, err = child.communicate()
    assert child.returncode == 16 and "took longer than 1 s" in err and "Traceback" not in err
    server.behave()
    child = _child(command, _PROGRAM.format("") % str(lock.RUNTIME))
    assert child.communicate()[0] == "nothing new: Target device-1 is installed\n"


def test_a_check_in_that_is_asked_to_end_ends(device, command, server):
    server.misbehave("/repo", hang)
    child = _child(command, _PROGRAM.format("") % str(lock.RUNTIME))
    deadline = time.monotonic() + 60
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert child.communicate()[1].endswith("composeapps: interrupted\n") and child.returncode == 130


def test_the_memory_of_check_ins_is_not_on_the_flash():
    assert str(memory.lock.RUNTIME).startswith("/run/")
