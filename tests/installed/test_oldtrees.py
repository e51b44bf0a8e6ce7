# SPDX-License-Identifier: MIT
"""What agents left that replaced whole trees: nothing that a service or a user wrote there is lost."""

import json
import os
import shutil

import pytest

from composeapps.installed import appfiles, install
from composeapps.oci.names import AppName
from installed.test_placing import every_cut, tree
from support.device import Device

OLD = {"conf/a": "1", "data/seed": "1", "gone": "1"}
NEW = {"conf/a": "2", "data/seed": "2", "data/new": "2"}
SERVICES = {"a": {"image": "base", "volumes": ["./data:/data"]}}


@pytest.fixture
def shelf(memory):
    """A Device without a dockerd, in memory."""
    return Device(memory)


def write(directory, files):
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def note(shelf, directory, **record):
    path = shelf.directory.with_name(f".bundle-{shelf.name}-{directory.stat().st_ino}.json")
    path.write_text(json.dumps(record))


def exchanged(shelf, new):
    """Leave what a cut after the exchange of the trees left, before anything was carried over."""
    compose = {"docker-compose.yml": new.compose.decode()}
    write(shelf.directory, {**NEW, **compose})
    note(shelf, shelf.directory, members=[*NEW, "conf", "data", "docker-compose.yml"])
    old = shelf.directory.with_name(f".bundle-{shelf.name}-{shelf.directory.stat().st_ino}")
    write(old, {**OLD, "data/db": "rows", "data/seed": "edited", "own/x": "mine", "conf/local": "mine"})
    (old / "data/link").symlink_to("/etc/passwd")
    note(shelf, old, members=[*OLD, "conf", "data"], users=[], kept={"data": (old / "data").stat().st_ino})
    unfinished = shelf.directory.with_name("unfinished")
    write(unfinished, {"x": "1"})
    unfinished.rename(shelf.directory.with_name(f".bundle-{shelf.name}-{unfinished.stat().st_ino}"))


def left(shelf):
    return [path.name for path in shelf.config.compose_root.iterdir() if path.name.startswith(".bundle-")]


def test_an_update_that_was_cut_off_is_gone_on_with(shelf, monkeypatch):
    new = shelf.version(SERVICES, NEW)
    exchanged(shelf, new)
    inode = next(shelf.config.compose_root.glob(".bundle-*/data")).stat().st_ino

    def begin():
        shutil.rmtree(shelf.config.compose_root)
        exchanged(shelf, new)

    def check(at):
        install.place_bundle(new, shelf.store, shelf.config)
        assert left(shelf) == [], at
        found = tree(shelf.directory)
        assert found == {**NEW, "docker-compose.yml": new.compose.decode(), "data/db": "rows", "data/seed": "edited",
                         "own/x": "mine", "conf/local": "mine"}, at
        assert os.readlink(shelf.directory / "data/link") == "/etc/passwd"

    assert every_cut(monkeypatch, begin, lambda: install.place_bundle(new, shelf.store, shelf.config), check) > 20
    begin()
    inode = next(shelf.config.compose_root.glob(".bundle-*/data")).stat().st_ino
    install.place_bundle(new, shelf.store, shelf.config)
    assert (shelf.directory / "data").stat().st_ino == inode


def test_the_first_start_takes_over_what_is_there(shelf):
    old, new = shelf.version(SERVICES, OLD), shelf.version(SERVICES, NEW)
    write(shelf.directory, {**OLD, "docker-compose.yml": old.compose.decode(), "data/db": "rows"})
    shelf.directory.chmod(0o755)
    note(shelf, shelf.directory, members=[*OLD, "conf", "data", "docker-compose.yml"])
    assert install.place_bundle(old, shelf.store, shelf.config, notify=shelf.notes.append)
    assert left(shelf) == [] and shelf.notes == []
    install.place_bundle(new, shelf.store, shelf.config, notify=shelf.notes.append)
    assert tree(shelf.directory) == {**NEW, "docker-compose.yml": new.compose.decode(), "data/db": "rows"}
    assert shelf.notes == []


def test_an_update_comes_before_the_first_start(shelf):
    old, new = shelf.version(SERVICES, OLD), shelf.version(SERVICES, {**NEW, "data/two": "2"})
    write(shelf.directory, {**OLD, "docker-compose.yml": old.compose.decode(), "data/two": "edited"})
    install.place_bundle(new, shelf.store, shelf.config, old=old, notify=shelf.notes.append)
    assert tree(shelf.directory) == {**NEW, "docker-compose.yml": new.compose.decode(), "data/two": "edited"}
    assert ["data/two" in text for text in shelf.notes] == [True]


def test_a_removal_takes_what_an_older_agent_unpacked(shelf):
    old = shelf.version(SERVICES, OLD)
    write(shelf.directory, {**OLD, "docker-compose.yml": old.compose.decode(), "data/db": "rows"})
    note(shelf, shelf.directory, members=[*OLD, "conf", "data", "docker-compose.yml"])
    appfiles.adopt(old, shelf.store, shelf.config)
    appfiles.remove(AppName(shelf.name), shelf.config)
    assert tree(shelf.config.compose_root) == {f".kept/{shelf.name}/data/db": "rows"}
