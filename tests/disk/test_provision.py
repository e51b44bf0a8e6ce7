# SPDX-License-Identifier: MIT
"""What a device was given, taken over from a file in place of the partition: whole, once, cut anywhere, wiped."""

import json
import os
import subprocess

import pytest

from composeapps.cli import config
from composeapps.disk import area, certify, provision
from composeapps.errors import CorruptError, StorageError, UsageError

KEY = "-----BEGIN PRIVATE KEY-----\n" + "c2VjcmV0" * 200 + "\n-----END PRIVATE KEY-----\n"
GIVEN = area.Provision(device="shop-1", serial="A1B2", key=KEY, certificate="certificate", authority="authority",
                       settings="composeapps.parallel = 5\n")


class Cut(Exception):
    pass


class Device:
    def __init__(self, top):
        self.directory, self.partition = top / "sota", top / "partition"
        self.requests, self.said = [], []

    def give(self, given):
        self.partition.write_bytes(area.pack(given).ljust(1 << 20, b"\0"))

    def take_over(self):
        return provision.take_over(self.partition, self.directory, config.check_own, self.said.append,
                                   lambda *found: self.requests.append(found))

    def files(self):
        return {path.name: path.read_text() for path in self.directory.iterdir() if path.name != provision.DEVICE}


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


FILES = {"pkey.pem": KEY, "client.pem": "certificate", "root.crt": "authority",
         "composeapps.toml": "composeapps.parallel = 5\n"}


def test_what_was_given_is_taken_over_once_and_wiped(device):
    device.give(GIVEN)
    old = os.umask(0)
    try:
        assert device.take_over()
    finally:
        os.umask(old)
    assert device.files() == FILES
    assert {path.stat().st_mode & 0o777 for path in device.directory.iterdir()} == {0o600}
    assert provision.known(device.directory)[:2] == ("shop-1", "A1B2")
    left = device.partition.read_bytes()
    assert area.parse(left) == area.Provision(serial="A1B2")
    assert b"c2VjcmV0" not in left and b"shop-1" not in left and not left[area.SECTOR:].strip(b"\0")
    assert not device.take_over()


def test_a_disk_that_was_given_nothing_has_nothing_to_take_over(device):
    device.partition.write_bytes(b"\xa5" * (1 << 20))
    assert not device.take_over() and not device.directory.exists()


def test_the_serial_number_alone_comes_back_after_everything_was_wiped(device):
    device.give(GIVEN)
    device.take_over()
    subprocess.run(["rm", "-r", device.directory], check=True)
    assert device.take_over() and not device.take_over()
    assert provision.known(device.directory)[:2] == ("", "A1B2") and device.files() == {}


@pytest.mark.parametrize("given", [GIVEN, area.Provision(device="shop-1", new_key=True)], ids=["given", "made"])
def test_a_cut_at_any_step_is_finished_by_the_next_start(device, given, monkeypatch):
    calls = [(provision.durable, "replace"), (provision.os, "fsync"), (provision.os, "pwrite"),
             (provision.durable, "make_directories")]
    step = 0
    while True:
        step += 1
        subprocess.run(["rm", "-rf", device.directory], check=True)
        device.give(given)
        count = 0

        def cutting(real, last=step):
            def run(*words, **more):
                nonlocal count
                count += 1
                if count == last:
                    raise Cut
                return real(*words, **more)
            return run

        for module, name in calls:
            monkeypatch.setattr(module, name, cutting(getattr(module, name)))
        try:
            device.take_over()
        except Cut:
            monkeypatch.undo()
            key = device.directory / "pkey.pem"
            before = key.read_text() if key.exists() else ""
            device.take_over()
            assert before in ("", key.read_text())
            assert device.files().keys() == (FILES.keys() if given is GIVEN else {"pkey.pem"})
            assert area.parse(device.partition.read_bytes()) == area.Provision(serial=given.serial)
            continue
        break
    assert step > 8


def test_a_damaged_area_is_refused_and_nothing_of_it_taken(device):
    device.give(GIVEN)
    with open(device.partition, "r+b") as stream:
        stream.seek(900)
        stream.write(b"x")
    with pytest.raises(CorruptError, match="provision the device anew"):
        device.take_over()
    assert not device.directory.exists()


@pytest.mark.parametrize("content", [b"[]", b'{"device": 5}', b'{"device": "../x"}', b'{"other": "x"}', b"{", b"null",
                                     b'{"key": true}', b'{"new_key": "yes"}', b"[" * 20_000])
def test_an_area_of_another_content_is_refused(device, content):
    device.partition.write_bytes((area._header(content) + content).ljust(1 << 20, b"\0"))
    with pytest.raises(CorruptError):
        device.take_over()


def test_settings_that_the_agent_would_not_take_are_not_taken_over(device):
    device.give(GIVEN._replace(settings="composeapps.no_such = 1\n"))
    with pytest.raises(UsageError, match="no_such"):
        device.take_over()
    # An agent that knows them can still take over all of it.
    assert area.parse(device.partition.read_bytes()).key == KEY and not device.directory.exists()


def test_another_identity_replaces_the_one_before(device):
    device.give(GIVEN)
    device.take_over()
    device.give(area.Provision(device="shop-2", key="other"))
    device.take_over()
    # The certificate was the other key's.
    assert device.files() == {name: text for name, text in (FILES | {"pkey.pem": "other"}).items()
                              if name != "client.pem"}
    assert provision.known(device.directory)[:2] == ("shop-2", "A1B2")


def test_what_was_lost_meanwhile_is_given_again_by_the_same_area(device):
    device.give(GIVEN)
    device.take_over()
    (device.directory / "pkey.pem").unlink()
    device.give(GIVEN)
    device.take_over()
    assert device.files() == FILES


def test_a_key_of_the_devices_own_never_leaves_it(device):
    device.give(area.Provision(device="shop-1", new_key=True))
    device.take_over()
    (name, request), = device.requests
    assert name == "shop-1" and "PRIVATE" not in request and "PRIVATE" not in " ".join(device.said)
    told = subprocess.run(["openssl", "req", "-verify", "-noout", "-text"], input=request, capture_output=True,
                          text=True, check=True)
    assert "CN = shop-1" in told.stdout or "CN=shop-1" in told.stdout
    assert "prime256v1" in told.stdout and "TLS Web Client Authentication" in told.stdout
    key = (device.directory / "pkey.pem").read_text()
    device.take_over()
    assert (device.directory / "pkey.pem").read_text() == key and len(device.requests) == 1
    # Asked for once more, for another owner, it is another one.
    device.give(area.Provision(device="shop-9", new_key=True))
    device.take_over()
    assert (device.directory / "pkey.pem").read_text() != key and device.requests[1][0] == "shop-9"


def test_a_device_without_openssl_says_what_it_lacks(device, monkeypatch):
    monkeypatch.setattr(certify.programs, "ENVIRONMENT", {"PATH": "/nonexistent"})
    device.give(area.Provision(device="shop-1", new_key=True))
    with pytest.raises(Exception, match="openssl-bin"):
        device.take_over()
    assert area.parse(device.partition.read_bytes()).new_key


def test_a_full_disk_leaves_the_area_as_it_is(device, monkeypatch):
    device.give(GIVEN)

    def full(*_words, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(provision.durable, "write_file", full)
    with pytest.raises(StorageError, match="full"):
        device.take_over()
    monkeypatch.undo()
    device.take_over()
    assert device.files() == FILES


def test_the_agent_goes_by_the_devices_own_settings(tmp_path):
    file, own = tmp_path / "config.toml", tmp_path / "sota"
    own.mkdir()
    file.write_text(f'[composeapps]\nidentity_dir = "{own}"\nparallel = 2\nsoak_time = 3\n'
                    '[registry."a.example"]\nproxy = ""\n')
    (own / "composeapps.toml").write_text('composeapps.parallel = 7\nregistry."b.example".url = "http://b:1"\n')
    found = config.load(file)
    assert (found.parallel, found.soak_time) == (7, 3)
    assert found.registries.keys() == {"a.example", "b.example"}
    (own / "composeapps.toml").write_text('composeapps.state_dir = "/elsewhere"\n')
    with pytest.raises(UsageError, match="state_dir"):
        config.load(file)


def test_the_record_is_for_programs_and_a_damaged_one_is_none(device):
    device.give(GIVEN)
    device.take_over()
    assert json.loads((device.directory / "device.json").read_text())["device"] == "shop-1"
    (device.directory / "device.json").write_text("[]")
    assert provision.known(device.directory) == provision.Known()
