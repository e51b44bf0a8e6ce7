# SPDX-License-Identifier: MIT
"""composeapps selftest: what a device must have to be good, the line for a fixture, and that test data is gone."""

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from composeapps.cli import main, selftest
from composeapps.disk import asking, provision, wish
from composeapps.records import resetnote
from composeapps.space import check


class Device:
    """A device without apps, whose directories are all below ``root``."""

    def __init__(self, root, capsys):
        self.root, self._capsys = root, capsys
        (root / "store").mkdir()
        self.configure()

    def configure(self, more=""):
        (self.root / "config.toml").write_text(f"""
[pacman]
reset_apps_root = "{self.root}/store"
compose_apps_root = "{self.root}/compose"
storage_watermark = 95
[composeapps]
state_dir = "{self.root}/state"
identity_dir = "{self.root}/sota"
factory_file = "{self.root}/factory.json"
docker_host = "unix://{self.root}/docker.sock"
{more}""")

    def run(self, *words):
        """Return (exit status, the JSON of the command), whose text must say the same."""
        texts = []
        for more in ((), ("--json",)):
            status = main.main(["--config", str(self.root / "config.toml"), "selftest", *words, *more])
            said = self._capsys.readouterr()
            assert said.out, said.err
            texts.append(said.out)
        found = json.loads(texts[1])
        assert texts[0].splitlines()[-1] == found["line"]
        assert status == (0 if found["pass"] else 8)
        assert [name for name in re.findall(r"^(\w+): FAILED", texts[0], re.M)] == found["failed"]
        return status, found


def _disk(free, reserved=0):
    found = SimpleNamespace(f_frsize=1, f_blocks=100, f_bfree=free, f_bavail=free - reserved)
    return lambda path: found


@pytest.fixture
def device(tmp_path, capsys, monkeypatch):
    # This machine's own: whether its units and its disk are well is not what is tested.
    monkeypatch.setattr(selftest, "_units", lambda: ())
    monkeypatch.setattr(selftest, "_machine", lambda: ())
    monkeypatch.setattr("composeapps.cli.dockerroot.configured", lambda: str(tmp_path / "docker"))
    monkeypatch.setattr(check.os, "statvfs", _disk(50))
    return Device(tmp_path, capsys)


def test_a_good_device_says_so_in_one_line(device):
    status, found = device.run()
    assert status == 0 and found["line"] == "COMPOSEAPPS-SELFTEST PASS device=- serial=- failed=-"
    assert [test["name"] for test in found["tests"]] == [
        "store", "apps", "identity", "machine", "clock", "space", "units"]
    assert found["versions"]["composeapps"] and found["versions"]["kernel"]


def test_the_identity_has_to_be_the_labels(device):
    provision.remember(device.root / "sota", provision.Known("shop-1", "A1"))
    assert device.run("--device", "shop-1", "--serial", "A1")[0] == 0
    _status, found = device.run("--device", "shop-1", "--serial", "A2")
    assert found["line"] == "COMPOSEAPPS-SELFTEST FAIL device=shop-1 serial=A1 failed=identity"
    provision.put(device.root / "sota", provision.CERTIFICATE, "none")
    assert device.run()[1]["failed"] == ["identity"]


def test_what_the_image_carries_has_to_be_there(device):
    (device.root / "factory.json").write_text(json.dumps({"apps": {"web": f"hub.demo.test/web@sha256:{'ab' * 32}"}}))
    _status, found = device.run()
    assert found["failed"] == ["store", "apps"] and "web" in str(found["tests"][0]["problems"])


def test_a_clock_of_1970_and_a_full_disk_are_told(device, monkeypatch):
    (device.root / "factory.json").write_text('{"apps": {}}')
    os.utime(device.root / "factory.json", (time.time() + 1000,) * 2)
    assert device.run()[1]["failed"] == ["clock"]
    os.utime(device.root / "factory.json", (0, 0))
    monkeypatch.setattr(check.os, "statvfs", _disk(4))
    assert device.run()[1]["failed"] == ["space"]
    # As df has it: what is reserved for root is neither used nor room.
    monkeypatch.setattr(check.os, "statvfs", _disk(24, reserved=20))
    assert device.run()[1]["failed"] == []


def test_a_unit_that_failed_is_told(device, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(selftest.os.path, "isdir", lambda path: True)
    monkeypatch.setattr("composeapps.disk.run.run", lambda *words: (0, "shop.service loaded failed failed Shop"))
    assert list(selftest._units()) == ["shop.service has failed"]


def test_test_data_that_is_still_there_fails_and_what_was_wiped_passes(device, monkeypatch):
    asked = []
    (device.root / "factory.json").write_text('{"apps": {}}')
    monkeypatch.setattr(asking, "boot_partition", lambda: "boot")
    monkeypatch.setattr(asking, "problems", lambda factory, store: [])
    monkeypatch.setattr(asking, "ask", lambda boot, wanted, notify: asked.append(wanted))
    assert device.run("--wipe")[0] == 0
    assert {(each.keep, each.origin) for each in asked} == {(wish.REGISTRATION, "selftest")}
    _status, found = device.run("--wiped")
    assert found["failed"] == ["wiped"] and len(found["tests"][-1]["problems"]) == 4
    # What the reset does, as tests/disk has it.
    for path in (device.root / "state", device.root / "compose", device.root / "docker"):
        for each in sorted(path.rglob("*"), reverse=True):
            each.unlink() if each.is_file() else each.rmdir()
    resetnote.write(device.root / "state", {"time": "2026-01-01T00:00:00Z", "origin": "selftest",
                                            "kept": "registration", "discarded": False, "lost": ""})
    assert device.run("--wiped")[0] == 0
    Path(device.root, "compose/.composeapps-selftest").write_text("")
    assert device.run("--wiped")[0] == 8


def test_a_device_that_is_not_good_is_not_wiped(device, monkeypatch):
    monkeypatch.setattr(asking, "boot_partition", lambda: pytest.fail("asked"))
    _status, found = device.run("--wipe", "--serial", "A2")
    assert not found["wipe"] and not (device.root / "state" / selftest.MARK).exists()
