# SPDX-License-Identifier: MIT
"""0 of status and ps means that what is to run runs, and 0 of check that what is to be there is there."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from composeapps.cli.main import main
from composeapps.records import journal
from composeapps.records.state import StateDirectory
from composeapps.store.store import Store

TOP = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((TOP / "meta-composeapps" / "docs" / "status.schema.json").read_text())
URI = "hub.demo.test/factory/web@sha256:" + "ab" * 32


class Device:
    """A device without dockerd whose directories are all below ``root``; none is there yet."""

    def __init__(self, root, capsys):
        self.root, self.states, self._capsys = root, StateDirectory(root / "state"), capsys
        self.store = Store(root / "store")
        (root / "config.toml").write_text(f"""
[pacman]
reset_apps_root = "{root}/store"
compose_apps_root = "{root}/compose"
[composeapps]
state_dir = "{root}/state"
factory_file = "{root}/factory.json"
factory_store = "{root}/factory"
docker_host = "unix://{root}/docker.sock"
""")

    def run(self, *words):
        """Return (exit status, what was printed on both outputs)."""
        self._capsys.readouterr()
        status = main(["--config", str(self.root / "config.toml"), *words])
        return status, "".join(self._capsys.readouterr())

    def status(self):
        """Return (exit status, the JSON of status), which keeps to its schema."""
        status, shown = self.run("status", "--json")
        found = json.loads(shown)
        jsonschema.validate(found, SCHEMA)
        assert status == (0 if found["ok"] else 8)
        return status, found

    def preload(self, **apps):
        (self.root / "factory.json").write_text(json.dumps({"apps": apps}))


@pytest.fixture
def device(tmp_path, capsys):
    return Device(tmp_path, capsys)


def test_a_device_that_never_had_an_app_is_well_and_says_that_there_is_no_store(device):
    assert device.status()[0] == device.run("ps")[0] == 0
    for words in (["check"], ["ls"], ["check", "--json"]):
        status, shown = device.run(*words)
        assert status == 0 and f"the store {device.root}/store does not exist" in shown
    assert not (device.root / "store").exists() and not device.states.root.exists()


@pytest.mark.parametrize("words", [["check"], ["ls"], ["prune"], ["prune", "--dry-run"]])
def test_a_store_that_is_named_has_to_be_there(device, words):
    status, shown = device.run(*words, "--store", str(device.root / "typo"))
    assert status == 3 and f"{device.root}/typo does not exist" in shown
    (device.root / "file").write_text("")
    status, shown = device.run(*words, "--store", str(device.root / "file"))
    assert status == 7 and "is no directory" in shown


def test_apps_of_the_image_that_are_not_there_yet_are_named(device):
    device.preload(web=URI)
    status, found = device.status()
    (app,) = found["apps"]
    assert status == 8 and (app["name"], app["uri"], app["update_status"]) == ("web", "", "downloaded")
    assert URI in app["problems"][0]["text"] and "composeapps run web" in app["problems"][0]["remedy"]
    status, shown = device.run("status")
    assert status == 8 and "not installed yet" in shown
    for words in (["ps"], ["ps", "web"]):
        status, shown = device.run(*words)
        assert status == 8 and URI in shown and "not installed" in shown


def test_what_a_user_removed_is_not_awaited(device):
    device.preload(web=URI)
    device.states.note_removal("web", {})
    assert device.status()[1]["apps"] == [] and device.run("status")[0] == device.run("ps")[0] == 0


@pytest.mark.parametrize("content", ["", "{", '{"apps": []}'])
def test_a_list_of_preloaded_apps_that_cannot_be_read_is_not_well(device, content):
    (device.root / "factory.json").write_text(content)
    status, found = device.status()
    assert status == 8 and "factory.json" in found["problems"][0]
    status, shown = device.run("ps")
    assert status == 4 and "factory.json" in shown


def test_a_first_installation_that_is_under_way_is_not_well(device):
    journal.write(device.states, journal.new("web", "", URI), step=journal.FETCHING)
    status, found = device.status()
    assert status == 8 and [app["name"] for app in found["apps"]] == ["web"]
    assert device.run("ps")[0] == 8


def test_check_tells_of_a_lost_store_and_of_what_the_image_brings(device):
    device.preload(web=URI)
    status, shown = device.run("check")
    assert status == 3 and f"{device.root}/store does not exist, though web" in shown and URI in shown
    found = json.loads(device.run("check", "--json")[1])
    assert {each["name"]: each["exit_code"] for each in found} == {"store": 3, "web": 3}
    device.store.make_private()
    found = json.loads(device.run("check", "--json")[1])
    assert [(each["name"], each["ok"]) for each in found] == [("web", False)]
    shutil.rmtree(device.root / "store")
    (device.root / "store").write_text("")
    status, shown = device.run("check")
    assert status == 7 and "is no directory" in shown
