# SPDX-License-Identifier: MIT
"""A bundle in the place of another: what is the user's stays as it is, whenever it is cut off."""

import contextlib
import errno
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from composeapps import beneath
from composeapps.app import bundle
from composeapps.errors import CorruptError, StorageError
from composeapps.installed import appfiles, install, mounts, staging
from composeapps.oci.digests import sha256
from composeapps.oci.names import AppName
from support.apps import make_app
from support.device import Device

OLD = {"conf/a": "1", "conf/gone": "1", "gone/x": "1", "data/.keep": "", "data/seed": "1", "data/other": "1",
       "data/dropped": "1", "data/edited": "1", "bin/tool": "1"}
NEW = {"conf/a": "2", "conf/new": "2", "data/.keep": "", "data/seed": "2", "data/other": "2", "data/added": "2",
       "data/there": "2", "bin/tool": "1", "own/file": "2"}
# What services and users made in the directory.
MADE = {"data/db": "rows", "data/deep/er/log": "lines", "own/mine": "mine", "top": "mine", "gone/left": "mine",
        "data/other": "changed", "data/edited": "changed", "data/there": "mine first"}
SERVICES = {"a": {"image": "base", "volumes": ["./data:/data", "./conf:/conf:ro"]}}
EXPECTED = {**NEW, **MADE, "own/file": "2"}


def tree(directory):
    return {str(path.relative_to(directory)): path.read_text()
            for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink()}


def place(shelf, app, **options):
    return install.place_bundle(app, shelf.store, shelf.config, notify=shelf.notes.append, **options)


def private(shelf, *parts):
    return shelf.config.compose_root.joinpath(".composeapps", shelf.name, *parts)


@pytest.fixture
def shelf(memory):
    """A Device without a dockerd, in memory."""
    return Device(memory)


@pytest.fixture
def installed(shelf):
    """Return (the device, its old version in place with what was made since, the new version)."""
    old, new = shelf.version(SERVICES, OLD), shelf.version(SERVICES, NEW)
    place(shelf, old)
    make(shelf)
    return shelf, old, new


def make(shelf):
    for name, text in MADE.items():
        (shelf.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (shelf.directory / name).write_text(text)
    (shelf.directory / "data/empty").mkdir()


def _with(app, files):
    return {**files, "docker-compose.yml": app.compose.decode()}


def test_what_is_the_users_stays_and_the_rest_is_what_the_bundle_says(installed):
    shelf, old, new = installed
    before = {name: (shelf.directory / name).stat().st_ino for name in (".", "data", "conf", "data/db", "data/other")}
    assert place(shelf, new)
    assert tree(shelf.directory) == _with(new, EXPECTED) and (shelf.directory / "data/empty").is_dir()
    assert {name: (shelf.directory / name).stat().st_ino for name in before} == before
    told = "\n".join(shelf.notes)
    for name in ("data/other", "data/edited", "data/there"):
        assert f"{shelf.name}: {name} " in told
    assert len(shelf.notes) == 3
    assert not place(shelf, new) and len(shelf.notes) == 3, "once is enough"
    place(shelf, old)
    assert tree(shelf.directory) == _with(old, {**OLD, **MADE})


def test_a_directory_that_a_service_writes_to_keeps_its_mode_and_its_owner(installed):
    shelf, _old, new = installed
    (shelf.directory / "data").chmod(0o1770)
    (shelf.directory / "data/seed").chmod(0o600)
    os.chown(shelf.directory / "data", 1000, 1000)
    os.chown(shelf.directory / "data/seed", 1000, 1000)
    place(shelf, new)
    found = (shelf.directory / "data").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o1770, 1000)
    assert (shelf.directory / "data/seed").read_text() == "2" and (shelf.directory / "data/seed").stat().st_uid == 1000


def test_a_seed_that_is_missing_is_written(installed):
    shelf, old, _new = installed
    (shelf.directory / "data/seed").unlink()
    assert "data/seed is missing" in install.bundle_problems(old, shelf.store, shelf.config)
    place(shelf, old)
    assert (shelf.directory / "data/seed").read_text() == "1"


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda d: (d / "bin/tool").write_text("other"), "bin/tool has other content"),
    (lambda d: (d / "bin/tool").chmod(0o600), "bin/tool has another mode or owner"),
    (lambda d: os.chown(d / "bin/tool", 7, 7), "bin/tool has another mode or owner"),
    (lambda d: (d / "conf/a").unlink(), "conf/a is missing"),
    (lambda d: shutil.rmtree(d / "conf"), "conf is missing"),
    (lambda d: ((d / "bin/tool").unlink(), (d / "bin/tool").symlink_to("/etc/passwd")), "bin/tool is no file"),
    (lambda d: ((d / "bin/tool").unlink(), os.mkfifo(d / "bin/tool")), "bin/tool is no file"),
    (lambda d: ((d / "bin/tool").unlink(), (d / "bin/tool/x").mkdir(parents=True)), "bin/tool is no file"),
    (lambda d: (shutil.rmtree(d / "conf"), (d / "conf").symlink_to("/etc")), "conf is no directory"),
    (lambda d: (shutil.rmtree(d / "conf"), (d / "conf").write_text("x")), "conf is no directory"),
])
def test_damage_is_named_and_mended(installed, spoil, says):
    shelf, old, _new = installed
    assert install.bundle_problems(old, shelf.store, shelf.config) == []
    spoil(shelf.directory)
    assert says in install.bundle_problems(old, shelf.store, shelf.config)
    assert place(shelf, old)
    assert install.bundle_problems(old, shelf.store, shelf.config) == []
    assert tree(shelf.directory) == _with(old, {**OLD, **MADE})
    assert Path("/etc/passwd").exists() and Path("/etc").is_dir()


@pytest.mark.parametrize("change", [
    lambda d: (shutil.rmtree(d / "data"), (d / "data").symlink_to(d.parent / "elsewhere")),
    lambda d: (shutil.rmtree(d / "data"), (d / "data").write_text("a file")),
    lambda d: ((d / "data/seed").unlink(), (d / "data/seed").symlink_to(d.parent / "elsewhere/victim")),
    lambda d: ((d / "data/seed").unlink(), os.mkfifo(d / "data/seed")),
    lambda d: ((d / "data/seed").unlink(), (d / "data/seed").mkdir()),
])
def test_what_a_user_put_in_the_place_of_a_seed_is_neither_followed_nor_touched(installed, change):
    shelf, _old, new = installed
    victim = shelf.config.compose_root / "elsewhere/victim"
    victim.parent.mkdir()
    victim.write_text("not ours")
    change(shelf.directory)
    before = {path: path.lstat().st_ino for path in shelf.directory.glob("data/**/*") if not path.is_dir()}
    place(shelf, new)
    assert victim.read_text() == "not ours" and list(victim.parent.iterdir()) == [victim]
    assert all(path.lstat().st_ino == inode for path, inode in before.items() if path.name == "seed")
    assert (shelf.directory / "conf/a").read_text() == "2"


def test_once_a_users_always_a_users(installed):
    shelf, _old, _new = installed
    plain = shelf.version({"a": {"image": "base"}}, NEW)
    place(shelf, plain)
    assert [(shelf.directory / "data" / name).read_text() for name in ("db", "other")] == ["rows", "changed"]
    none = shelf.version({"a": {"image": "base"}}, {"x": "1"})
    place(shelf, none)
    assert tree(shelf.directory) == _with(none, {"x": "1", **MADE})


class _Engine:
    """A dockerd with one container, which has places of a directory mounted."""

    def __init__(self, directory, *places, writes=True):
        self._mounts = [{"Type": "bind", "Source": str(directory / place), "RW": writes} for place in places]

    def containers(self, _label=None):
        return [{"Id": "c" * 64, "State": "exited", "Mounts": self._mounts}]


@pytest.mark.parametrize("places", (("conf",), (".",), ("..",), ("conf/a",)))
def test_what_any_container_may_write_to_is_the_users_too(installed, places):
    shelf, _old, new = installed
    (shelf.directory / "conf/a").write_text("changed")
    place(shelf, new, engine=_Engine(shelf.directory, *places))
    assert (shelf.directory / "conf/a").read_text() == "changed"


def test_a_place_that_nobody_can_tell_may_be_any(shelf):
    services = {"a": {"image": "base", "volumes": ["${X:?no}:/data"]}}
    place(shelf, shelf.version(services, {"conf/a": "1"}))
    (shelf.directory / "conf/a").write_text("changed")
    place(shelf, shelf.version(services, {"conf/a": "2"}))
    assert (shelf.directory / "conf/a").read_text() == "changed"


@pytest.mark.parametrize(("volume", "place", "writes"), [
    ("./a:/x", "a", True), ("./a/../b:/x:ro", "b", False), ("a:/x", None, None), ("/srv:/x", None, None),
    ("{dir}/q:/x:z,ro", "q", False), ("{root}:/x", ".", True), (".:/x", ".", True), ("../web/a:/x", "a", True),
    ("../other:/x", None, None), ("$D/b:/x", "d/b", True), ("${E:-./e}:/x:rw", "e", True), ("/x", None, None),
    ({"type": "bind", "source": "./a", "target": "/x"}, "a", True),
    ({"type": "bind", "source": "a", "target": "/x", "read_only": True}, "a", False),
    ({"type": "volume", "source": "a", "target": "/x"}, None, None), ("~/a:/x", None, None),
    ("${PWD}/p:/x", "p", True)])
def test_places_of_volumes(volume, place, writes):
    directory = Path("/root/apps/web")
    if isinstance(volume, str):
        volume = volume.replace("{dir}", str(directory)).replace("{root}", "/root")
    found = mounts.bindings({"services": {"s": {"volumes": [volume]}}}, mounts.Paths(directory, "D=./d\n"))
    assert [(each.place, each.writes) for each in found] == ([(place, writes)] if place else [])


class _CutOff(BaseException):
    """The power went."""


CHANGES = ((os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"), (os, "symlink"), (os, "fchmod"),
           (os, "fsync"), (appfiles.beneath, "rename"), (appfiles.durable, "sync_filesystem_of"))


def cutting(patch, at, error=_CutOff):
    """Let the ``at``-th change of the file system not happen, nor any after it."""
    steps = [0]

    def wrapped(function):
        def call(*args, **kwargs):
            steps[0] += 1
            if steps[0] >= at:
                raise error
            return function(*args, **kwargs)
        return call

    for module, name in CHANGES:
        patch.setattr(module, name, wrapped(getattr(module, name)))


def every_cut(monkeypatch, begin, action, check, error=_CutOff, seen=_CutOff):
    """Do ``action`` for each of its changes, cut off before it; ``check`` looks and finishes, ``begin`` restores."""
    at = 0
    while True:
        at, cut = at + 1, False
        begin()
        with monkeypatch.context() as patch:
            cutting(patch, at, error)
            try:
                action()
            except seen:
                cut = True
        check(at)
        if not cut:
            return at


@pytest.mark.parametrize(("places", "error", "few"), [
    ((), _CutOff, 16), (("conf",), _CutOff, 0), ((".",), _CutOff, 16), (("conf",), OSError(errno.ENOSPC, "full"), 16),
    (("conf",), OSError(errno.EIO, "broken"), 0)])
def test_cut_off_at_every_step_the_next_run_finishes(installed, monkeypatch, tmp_path, places, error, few):
    shelf, _old, new = installed
    monkeypatch.setattr(staging, "FEW", few)
    engine = _Engine(shelf.directory, *places)
    kept = tmp_path / "kept"
    shutil.copytree(shelf.config.compose_root, kept, symlinks=True)

    def begin():
        shutil.rmtree(shelf.config.compose_root)
        shutil.copytree(kept, shelf.config.compose_root, symlinks=True)

    def check(at):
        for name, text in MADE.items():
            assert (shelf.directory / name).read_text() == text, (at, name)
        for path in shelf.directory.rglob("*"):
            name = str(path.relative_to(shelf.directory))
            assert path.is_dir() or name in {**OLD, **NEW, **MADE, "docker-compose.yml": ""}, (at, name)
        place(shelf, new, engine=engine)
        assert tree(shelf.directory) == _with(new, EXPECTED), at
        assert not list(private(shelf).glob("new*")) and not list(private(shelf).glob("swap*"))
        assert not private(shelf, "before").exists()
        assert install.bundle_problems(new, shelf.store, shelf.config) == []

    seen = _CutOff if error is _CutOff else StorageError
    assert every_cut(monkeypatch, begin, lambda: place(shelf, new, engine=engine), check, error, seen) > 20


class _Order:
    """What happens to files, in order: ("made" or "renamed", name), ("synced", name) and "all synced"."""

    def __init__(self, patch):
        self.events = []
        self._watch(patch, beneath, "create", lambda _at, name, *_more, **_how: ("made", name))
        self._watch(patch, os, "rename", lambda _old, new, **_how: ("renamed", os.path.basename(new)))
        self._watch(patch, os, "fsync", lambda at: ("synced", os.path.basename(os.readlink(f"/proc/self/fd/{at}"))))
        self._watch(patch, appfiles.durable, "sync_filesystem_of", lambda *_at: "all synced")

    def _watch(self, patch, module, name, described):
        real = getattr(module, name)

        def call(*args, **kwargs):
            self.events.append(described(*args, **kwargs))
            return real(*args, **kwargs)

        patch.setattr(module, name, call)

    def of(self, what):
        return [at for at, event in enumerate(self.events) if event == what or event[0] == what]


def test_many_files_are_synced_together_before_the_first_has_its_name(shelf, monkeypatch):
    files = {f"d/{number % 40}/{number}": f"text {number}" for number in range(400)}
    app = shelf.version({"a": {"image": "base"}}, files)
    order = _Order(monkeypatch)
    place(shelf, app)
    events, synced = order.events, order.of("all synced")
    made = [at for at in order.of("made") if events[at][1].startswith(staging.PREFIX)]
    moved = [at for at in order.of("renamed") if events[at][1].isdigit()]
    assert len(made) == len(moved) + 1 == len(files) + 1
    # The contents, then the names in which they lie, then the record that forgets what was there before.
    assert made[-1] < synced[0] < moved[0] and moved[-1] < synced[1] and len(synced) == 2
    record = [at for at in order.of("renamed") if events[at][1] == "record.json"]
    assert record[0] < moved[0] and all(at < moved[0] or at > synced[1] for at in record)
    assert len(order.of("synced")) < 40
    assert tree(shelf.directory) == _with(app, files)


def test_few_files_are_synced_each(installed, monkeypatch):
    shelf, _old, new = installed
    order = _Order(monkeypatch)
    place(shelf, new)
    first = min(at for at in order.of("renamed") if order.events[at][1] in ("a", "new", "file"))
    made = [event[1] for event in order.events[:first] if event[0] == "made" and event[1].startswith(staging.PREFIX)]
    assert made and not order.of("all synced") and {("synced", name) for name in made} <= set(order.events[:first])


@pytest.mark.parametrize("cut", [0, 1])
def test_a_file_system_that_cannot_be_synced_keeps_the_version_that_is_there(shelf, monkeypatch, cut):
    old, new = ({f"d/{number % 30}/{number}": f"{text} {number}" for number in range(60)} for text in ("old", "new"))
    apps = [shelf.version({"a": {"image": "base"}}, files) for files in (old, new)]
    place(shelf, apps[0])
    calls = []

    def fail(descriptor, real=appfiles.durable.sync_filesystem_of):
        calls.append(descriptor)
        if len(calls) > cut:
            raise OSError(errno.EIO, "broken")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(appfiles.durable, "sync_filesystem_of", fail)
        with pytest.raises(StorageError, match="broken"):
            place(shelf, apps[1])
    assert tree(shelf.directory) == (_with(apps[1], new) if cut else _with(apps[0], old))
    assert [name for name in os.listdir(private(shelf)) if name.startswith(staging.PREFIX)] == []
    place(shelf, apps[1])
    assert tree(shelf.directory) == _with(apps[1], new)


def test_what_a_cut_left_goes_also_where_nothing_is_to_be_done(installed):
    shelf, old, _new = installed
    place(shelf, old)
    (private(shelf) / "new-7").write_text("half a fi")
    assert not place(shelf, old)
    assert not (private(shelf) / "new-7").exists()


def _swapped(shelf, app, monkeypatch, data):
    """Have the bundle's blob say something else as soon as it was verified."""
    def read(*args, real=bundle.read, **kwargs):
        found = real(*args, **kwargs)
        path = shelf.store.blob_path(app.bundle.digest)
        path.unlink()
        path.write_bytes(data)
        return found

    monkeypatch.setattr(bundle, "read", read)


@pytest.mark.parametrize("change", [
    lambda files: {**files, "d/7": b"other"}, lambda files: {**files, "d/7": b"0ther 7"},
    lambda files: dict(list(files.items())[:50]), lambda _files: {}, None])
def test_a_bundle_that_changes_between_its_two_readings_changes_nothing(shelf, monkeypatch, change):
    files = {f"d/{number}": f"other {number}".encode() for number in range(100)}
    old, new = shelf.version({"a": {"image": "base"}}, {"d/7": "old"}), shelf.version({"a": {"image": "base"}}, files)
    place(shelf, old)
    text = new.compose.decode()
    changed = make_app(text, change(files)).bundle if change else b"no bundle at all"
    _swapped(shelf, new, monkeypatch, changed)
    with pytest.raises(CorruptError, match=r"changed while it was read|is not a readable"):
        place(shelf, new)
    assert tree(shelf.directory) == _with(old, {"d/7": "old"})
    assert [name for name in os.listdir(private(shelf)) if name.startswith(staging.PREFIX)] == []


def test_one_content_under_many_names(shelf):
    """Hard links, empty files and long names, more of them than a process may have open."""
    long = "n" * 255
    app = shelf.version({"a": {"image": "base"}}, {"a": "text", "empty": "", long: "long", "z": b"\0" * 1_000_000})
    data = shelf.store.read(app.bundle.digest)
    packed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for info in old:
            tar.addfile(info, old.extractfile(info))
        for number in range(2000):
            info = tarfile.TarInfo(f"links/{number}")
            info.type, info.linkname = tarfile.LNKTYPE, "a"
            tar.addfile(info)
    digest = sha256(packed.getvalue())
    shelf.store.add_blob(digest, [packed.getvalue()])
    app = app._replace(bundle=app.bundle._replace(digest=digest, size=len(packed.getvalue())), contents=None)
    place(shelf, app)
    found = tree(shelf.directory)
    assert {found[f"links/{number}"] for number in range(2000)} == {"text"} and found[long] == "long"
    assert found["empty"] == "" and len(found["z"]) == 1_000_000
    # A container that writes to one of them writes to no other.
    assert len({path.stat().st_ino for path in (shelf.directory / "links").iterdir()}) == 2000


def test_a_first_version_that_goes_again_gives_back_what_was_there(shelf, monkeypatch, tmp_path):
    app = shelf.version(SERVICES, NEW)
    before = {"docker-compose.yml": "services: {}\n", "data/db": "rows", "data/seed": "mine", "conf/a": "mine",
              "own/file": "mine", "bin": "a file where a directory is to be"}
    for name, text in before.items():
        (shelf.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (shelf.directory / name).write_text(text)
    kept = tmp_path / "kept"
    place(shelf, app)
    assert tree(shelf.directory) == {**_with(app, NEW), "data/db": "rows", "data/seed": "mine"}
    assert "conf/a was there before" in "\n".join(shelf.notes)
    (shelf.directory / "data/late").write_text("written meanwhile")
    shutil.copytree(shelf.config.compose_root, kept, symlinks=True)

    def begin():
        shutil.rmtree(shelf.config.compose_root)
        shutil.copytree(kept, shelf.config.compose_root, symlinks=True)

    def check(at):
        appfiles.give_back(AppName(shelf.name), shelf.config)
        assert tree(shelf.directory) == {**before, "data/late": "written meanwhile"}, at
        assert not private(shelf).exists()

    assert every_cut(monkeypatch, begin, lambda: appfiles.give_back(AppName(shelf.name), shelf.config), check) > 10


def test_a_first_version_over_nothing_leaves_nothing(shelf):
    place(shelf, shelf.version(SERVICES, NEW))
    appfiles.give_back(AppName(shelf.name), shelf.config)
    assert [path.name for path in shelf.config.compose_root.iterdir()] == [".composeapps"]


def test_a_removal_takes_what_it_placed_and_sets_the_rest_aside(installed, monkeypatch, tmp_path):
    shelf, _old, new = installed
    place(shelf, new)
    kept = tmp_path / "kept"
    shutil.copytree(shelf.config.compose_root, kept, symlinks=True)

    def begin():
        shutil.rmtree(shelf.config.compose_root)
        shutil.copytree(kept, shelf.config.compose_root, symlinks=True)

    def remove():
        appfiles.remove(AppName(shelf.name), shelf.config, notify=shelf.notes.append)

    def check(at):
        remove()
        assert not shelf.directory.exists() and not private(shelf).exists(), at
        found = {}
        for directory in sorted((shelf.config.compose_root / ".kept").iterdir()):
            found |= tree(directory)
        assert found == MADE, at

    assert every_cut(monkeypatch, begin, remove, check) > 10
    assert str(shelf.config.compose_root / ".kept" / shelf.name) in shelf.notes[-1]
    assert stat.S_IMODE((shelf.config.compose_root / ".kept").stat().st_mode) == 0o700


def test_a_removal_of_what_nobody_changed_leaves_nothing(shelf):
    place(shelf, shelf.version(SERVICES, NEW))
    (shelf.directory / "data/empty/deeper").mkdir(parents=True)
    appfiles.remove(AppName(shelf.name), shelf.config)
    assert not shelf.directory.exists() and not (shelf.config.compose_root / ".kept").exists()


@pytest.mark.root
def test_a_removal_stops_at_other_apps_and_at_mounted_file_systems(installed, small_disk_at):
    shelf, _old, _new = installed
    (shelf.directory / "shop/data").mkdir(parents=True)
    (shelf.directory / "shop/data/db").write_text("of another app")
    (shelf.directory / "media/usb").mkdir(parents=True)
    disk = small_disk_at(shelf.directory / "media/usb")
    (disk / "film").write_text("long")
    appfiles.remove(AppName(shelf.name), shelf.config, [AppName(f"{shelf.name}/shop"), AppName("blog")],
                    shelf.notes.append)
    assert tree(shelf.directory) == {"shop/data/db": "of another app", "media/usb/film": "long"}
    assert (disk / "film").exists() and "media stays where it is" in "\n".join(shelf.notes)


@pytest.mark.root
def test_a_file_system_mounted_inside_is_left_where_it_is_and_written_to(installed, small_disk_at):
    shelf, _old, _new = installed
    (shelf.directory / "media").mkdir()
    disk = small_disk_at(shelf.directory / "media")
    (disk / "film").write_text("long")
    place(shelf, shelf.version(SERVICES, {**NEW, "media/list": "1"}))
    assert (shelf.directory / "media").is_mount() and (disk / "film").read_text() == "long"
    assert (disk / "list").read_text() == "1" and sorted(os.listdir(disk)) == ["film", "list"]


def test_what_others_may_not_read_they_cannot_reach(shelf):
    umask = os.umask(0)
    try:
        place(shelf, shelf.version(SERVICES, NEW))
    finally:
        os.umask(umask)
    for path in (shelf.directory, private(shelf), private(shelf).parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    whole = shelf.version({"a": {"image": "base", "volumes": [".:/app:ro"]}}, NEW)
    place(shelf, whole)
    assert stat.S_IMODE(shelf.directory.stat().st_mode) == 0o755, "a container's user has to get in"
    place(shelf, shelf.version(SERVICES, NEW))
    assert stat.S_IMODE(shelf.directory.stat().st_mode) == 0o700


def test_no_umask_changes_a_mode(shelf):
    umask = os.umask(0o077)
    try:
        place(shelf, shelf.version(SERVICES, NEW))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((shelf.directory / "conf/a").stat().st_mode) == 0o644
    assert stat.S_IMODE((shelf.directory / "conf").stat().st_mode) == 0o755


def test_without_a_record_what_was_changed_stays(installed):
    shelf, old, new = installed
    private(shelf, "record.json").write_text(json.dumps({"members": []}))
    place(shelf, new, old=old)
    assert tree(shelf.directory) == _with(new, EXPECTED)
    shutil.rmtree(private(shelf))
    place(shelf, old)
    assert {name: (shelf.directory / name).read_text() for name in MADE} == MADE


RACER = """
import os, sys
directory, outside = sys.argv[1:]
os.chdir(directory)
print("running", flush=True)
while True:
    try:
        os.rename("d", "away")
        os.symlink(outside, "d")
        os.unlink("d")
        os.rename("away", "d")
        os.rename("d/seed", "d/gone")
        os.symlink(os.path.join(outside, "victim"), "d/seed")
        os.unlink("d/seed")
        os.rename("d/gone", "d/seed")
    except OSError:
        pass
"""


@pytest.fixture
def racer(shelf):
    """Start a process that swaps a seed and its directory for links, as a container may, again and again."""
    outside = shelf.config.compose_root.parent / "outside"
    outside.mkdir()
    (outside / "victim").write_text("not ours")
    started = []

    def start(directory):
        process = subprocess.Popen([sys.executable, "-c", RACER, str(directory), str(outside)], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"running\n"

    yield start
    for process in started:
        process.kill()
        process.communicate()
    assert tree(outside) == {"victim": "not ours"} and stat.S_IMODE(outside.stat().st_mode) & 0o777 == 0o755


@pytest.mark.parametrize("end", ("place", "remove", "give_back"))
def test_a_container_that_swaps_directories_for_links_gets_nothing(shelf, racer, end):
    files = {f"data/d/{name}": "1" for name in ("seed", "other", "more/deep")}
    versions = [shelf.version(SERVICES, {name: text for name in files}) for text in "12"]
    place(shelf, versions[0])
    racer(shelf.directory / "data")
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        for app in (versions[1], versions[0]):
            with contextlib.suppress(StorageError):
                place(shelf, app)
    if end != "place":
        with contextlib.suppress(OSError):
            getattr(appfiles, end)(AppName(shelf.name), shelf.config)


@pytest.mark.parametrize("end", ("place", "remove"))
def test_a_directory_that_becomes_a_link_at_any_moment_leads_nowhere(shelf, monkeypatch, end):
    versions = [shelf.version(SERVICES, {"data/d/seed": text, "data/d/more/deep": text}) for text in "12"]
    outside = shelf.config.compose_root.parent / "outside"
    (outside / "more").mkdir(parents=True)
    (outside / "more/deep").write_text("1")
    directory, away = shelf.directory / "data/d", shelf.directory / "data/away"
    at, count = 0, 1
    while at < count:
        place(shelf, versions[0])
        (directory / "db").write_text("rows")
        at, count = at + 1, 0

        def opening(*args, at=at, function=os.open, **kwargs):
            nonlocal count
            count += 1
            if count == at:
                directory.rename(away)
                directory.symlink_to(outside)
            return function(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", opening)
            with contextlib.suppress(StorageError, OSError):
                if end == "place":
                    place(shelf, versions[1])
                else:
                    appfiles.remove(AppName(shelf.name), shelf.config)
        assert tree(outside) == {"more/deep": "1"}, at
        found = [path for path in shelf.config.compose_root.rglob("db")]
        assert [path.read_text() for path in found] == ["rows"], at
        shutil.rmtree(shelf.config.compose_root)
    assert at > 20


@pytest.mark.root
def test_whatever_lies_in_a_directory_is_set_aside(shelf):
    longest, odd = "n" * 255, os.fsdecode(b"caf\xe9")
    files = {"data/x": "1", f"data/{longest}": "1", "data/Case": "1", "data/case": "2"}
    place(shelf, shelf.version(SERVICES, files))
    data = shelf.directory / "data"
    assert tree(shelf.directory) | files == tree(shelf.directory)
    os.mkfifo(data / "fifo")
    os.mknod(data / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(data / "socket"))
    (data / odd).write_text("mine")
    (data / f"other{longest[5:]}").write_text("mine")
    (shelf.directory / "dangling").symlink_to("nowhere")
    deep = os.open(shelf.directory, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=deep)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = deeper
    os.close(deep)
    appfiles.remove(AppName(shelf.name), shelf.config, notify=shelf.notes.append)
    kept = shelf.config.compose_root / ".kept" / shelf.name
    assert not shelf.directory.exists()
    assert set(os.listdir(kept / "data")) == {"fifo", "null", "socket", odd, f"other{longest[5:]}"}
    assert (kept / "dangling").is_symlink()
    with beneath.opened(kept) as root, contextlib.suppress(FileNotFoundError):
        beneath.remove_tree(root.fd, "deep")


@pytest.mark.root
def test_what_cannot_be_moved_stays_and_is_told(shelf):
    place(shelf, shelf.version(SERVICES, {"data/x": "1"}))
    fixed = shelf.directory / "fixed"
    fixed.write_text("mine")
    if subprocess.run(["chattr", "+i", str(fixed)], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        appfiles.remove(AppName(shelf.name), shelf.config, notify=shelf.notes.append)
        assert tree(shelf.directory) == {"fixed": "mine"} and "fixed stays where it is" in "\n".join(shelf.notes)
    finally:
        subprocess.run(["chattr", "-i", str(fixed)], check=True)


@pytest.mark.root
def test_an_app_may_have_a_file_system_of_its_own(shelf, small_disk_at):
    shelf.directory.mkdir(parents=True)
    small_disk_at(shelf.directory)
    (shelf.directory / "conf").mkdir()
    (shelf.directory / "conf/a").write_text("mine")
    for text in "12":
        place(shelf, shelf.version(SERVICES, {"data/seed": text, "conf/a": text, "conf/b": text}))
    assert {name: content for name, content in tree(shelf.directory).items() if name != "docker-compose.yml"} == {
        "data/seed": "2", "conf/a": "2", "conf/b": "2", "conf/a.before": "mine"}
    (shelf.directory / "data/db").write_text("rows")
    appfiles.remove(AppName(shelf.name), shelf.config, notify=shelf.notes.append)
    assert tree(shelf.directory) == {"data/db": "rows", "conf/a.before": "mine"}
    assert f"{shelf.directory / 'data'} stays where it is" in "\n".join(shelf.notes)
