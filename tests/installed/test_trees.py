# SPDX-License-Identifier: MIT
"""A new bundle in the place of an old one: nothing of the user's is lost, whenever it is cut off."""

import os

import pytest

from composeapps import durable
from composeapps.installed import install, trees

OLD = {"conf/a": "1", "conf/gone": "1", "gone/x": "1", "data/.keep": "", "bin/tool": "1"}
NEW = {"conf/a": "2", "conf/new": "2", "data/.keep": "", "data/seed": "2", "bin/tool": "1"}
# What services and users left in the directory.
MADE = {"data/db": "rows", "data/deep/er/log": "lines", "own/file": "mine", "top": "mine", "gone/left": "mine"}
SERVICES = {"a": {"image": "base"}}


class _Engine:
    """A dockerd with one container, which has directories mounted; only for cuts at every step."""

    def __init__(self, target, *places, writes=True):
        self.runs = True
        self._container = {"Id": "c" * 64, "Mounts": [
            {"Type": "bind", "Source": str(target / place), "RW": writes} for place in places]}

    def containers(self):
        return [{"Id": self._container["Id"], "State": "running"}]

    def container(self, _identifier):
        return {**self._container, "State": {"Running": self.runs, "StartedAt": "2026-01-01T00:00:00Z"}}


def _tree(directory):
    return {str(path.relative_to(directory)): path.read_text()
            for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.fixture
def installed(shelf):
    """Return (the device, its old version in place with what was made since, the new version)."""
    old, new = shelf.version(SERVICES, OLD), shelf.version(SERVICES, NEW)
    install.place_bundle(old, shelf.store, shelf.config)
    for name, text in MADE.items():
        (shelf.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (shelf.directory / name).write_text(text)
    (shelf.directory / "empty").mkdir()
    return shelf, old, new


def _expected(app):
    return {**NEW, **MADE, "docker-compose.yml": app.compose.decode()}


def _left(shelf):
    return [path.name for path in shelf.config.compose_root.iterdir()
            if path != shelf.directory and not path.name.endswith(".json")]


def test_what_is_not_of_the_bundle_stays(installed):
    shelf, old, new = installed
    assert install.place_bundle(new, shelf.store, shelf.config)
    assert _tree(shelf.directory) == _expected(new) and (shelf.directory / "empty").is_dir()
    assert _left(shelf) == [] and not install.place_bundle(new, shelf.store, shelf.config)
    install.place_bundle(old, shelf.store, shelf.config)
    assert _tree(shelf.directory) == {**OLD, **MADE, "docker-compose.yml": old.compose.decode()}


def test_of_a_tree_that_nobody_described_everything_stays(installed):
    shelf, _old, new = installed
    for record in shelf.config.compose_root.glob(".bundle-*.json"):
        record.unlink()
    install.place_bundle(new, shelf.store, shelf.config)
    assert _tree(shelf.directory) == {**OLD, **_expected(new)}


def test_a_directory_that_is_written_to_stays_the_same_one(installed):
    shelf, _old, new = installed
    engine = _Engine(shelf.directory, "data", "conf")
    data, conf = (os.open(shelf.directory / name, os.O_RDONLY) for name in ("data", "conf"))
    before = os.stat("data", dir_fd=os.open(shelf.directory, os.O_RDONLY)).st_ino
    install.place_bundle(new, shelf.store, shelf.config, engine)
    assert (shelf.directory / "data").stat().st_ino == before == os.fstat(data).st_ino
    assert sorted(os.listdir(data)) == [".keep", "db", "deep", "seed"]
    assert sorted(os.listdir(conf)) == ["a", "gone"], "it has nothing of its own, and goes with its container"
    assert _tree(shelf.directory) == _expected(new) and len(_left(shelf)) == 1
    engine.runs = False
    install.place_bundle(new, shelf.store, shelf.config, engine)
    assert _left(shelf) == [] and os.listdir(conf) == []
    assert _tree(shelf.directory) == _expected(new)


def test_what_an_old_container_writes_while_it_goes_is_not_lost(installed):
    shelf, _old, new = installed
    engine = _Engine(shelf.directory, "conf")
    conf = os.open(shelf.directory / "conf", os.O_RDONLY)
    install.place_bundle(new, shelf.store, shelf.config, engine)
    os.close(os.open("late", os.O_WRONLY | os.O_CREAT, dir_fd=conf))
    engine.runs = False
    install.place_bundle(new, shelf.store, shelf.config, engine)
    assert (shelf.directory / "conf/late").exists() and _left(shelf) == []


def test_the_whole_directory_mounted_stays_the_same_one(installed):
    shelf, _old, new = installed
    before = shelf.directory.stat().st_ino
    install.place_bundle(new, shelf.store, shelf.config, _Engine(shelf.directory, "."))
    assert shelf.directory.stat().st_ino == before and _tree(shelf.directory) == _expected(new)
    assert _left(shelf) == []


class _CutOff(BaseException):
    """The power went."""


@pytest.mark.parametrize("places", ((), ("data",), ("data", "conf"), (".",)))
def test_cut_off_at_every_step_the_next_run_finishes(installed, monkeypatch, places):
    shelf, old, new = installed
    steps = 0

    def cutting(function, at):
        def call(*args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == at:
                raise _CutOff
            return function(*args, **kwargs)
        return call

    at = 0
    while True:
        at, steps = at + 1, 0
        cut = False
        with monkeypatch.context() as patch:
            for module, name in ((os, "rename"), (os, "link"), (durable, "fsync_directory"), (durable, "write_file"),
                                 (trees, "_exchange"), (trees.shutil, "rmtree")):
                patch.setattr(module, name, cutting(getattr(module, name), at))
            # Nothing of the agent's runs after a power cut.
            patch.setattr(trees, "_remove_unfinished", trees._remove_unfinished)
            try:
                install.place_bundle(new, shelf.store, shelf.config, _Engine(shelf.directory, *places))
            except _CutOff:
                cut = True
        for name, text in MADE.items():
            found = [path for path in shelf.config.compose_root.rglob(os.path.basename(name)) if path.is_file()]
            assert text in [path.read_text() for path in found], (at, name)
        engine = _Engine(shelf.directory, *places)
        engine.runs = False
        install.place_bundle(new, shelf.store, shelf.config, engine)
        assert _tree(shelf.directory) == _expected(new), at
        assert _left(shelf) == [], at
        if not cut:
            assert at > 5
            return
        install.place_bundle(old, shelf.store, shelf.config)
        assert _tree(shelf.directory) == {**OLD, **MADE, "docker-compose.yml": old.compose.decode()}, at


@pytest.mark.root
def test_a_file_system_mounted_inside_is_left_where_it_is(installed, small_disk_at):
    shelf, _old, new = installed
    (shelf.directory / "media").mkdir()
    disk = small_disk_at(shelf.directory / "media")
    (disk / "film").write_text("long")
    install.place_bundle(new, shelf.store, shelf.config)
    assert (shelf.directory / "media").is_mount() and (disk / "film").read_text() == "long"
    assert (shelf.directory / "conf/a").read_text() == "2" and _left(shelf) == []


def test_nothing_is_left_beside_an_app_that_goes(installed):
    shelf, _old, new = installed
    install.place_bundle(new, shelf.store, shelf.config, _Engine(shelf.directory, "conf", writes=False))
    assert len(_left(shelf)) == 1
    trees.remove_others(shelf.directory)
    assert list(shelf.config.compose_root.iterdir()) == [shelf.directory]
