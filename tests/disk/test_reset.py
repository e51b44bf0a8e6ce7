# SPDX-License-Identifier: MIT
"""The factory reset of a data partition, a file in its place: what goes, what each "keep" leaves, cut at every step."""

import contextlib
import json
import os
import subprocess

import pytest

from composeapps.cli.config import Config
from composeapps.disk import asking, filesystem, provision, reset, wish
from composeapps.errors import CorruptError, StorageError
from composeapps.records import resetnote

pytestmark = pytest.mark.root
MEBIBYTE = 1 << 20
MACHINE = "0123456789abcdef0123456789abcdef"


class Cut(Exception):
    pass


class Device:
    """A data partition with things on it, mounted while ``opened``."""

    def __init__(self, top):
        self.top, self.device, self.var = top, top / "partition", top / "var"
        self.var.mkdir()
        self.skeleton, self.root = top / "skeleton", top / "root"
        (self.skeleton / "lib/misc").mkdir(parents=True)
        (self.skeleton / "lib/misc/seed").write_text("seed")
        (self.root / "etc/ssh").mkdir(parents=True)
        self.config = Config(store=self.var / "sota/reset-apps", compose_root=self.var / "sota/compose-apps",
                             state_dir=self.var / "lib/composeapps")
        with open(self.device, "wb") as stream:
            stream.truncate(64 * MEBIBYTE)
        filesystem.make(self.device, self.skeleton)
        with self.opened():
            for path in ("sota/reset-apps/blobs/b", "sota/compose-apps/web/docker-compose.yml",
                         "sota/compose-apps/web/data/photo", "sota/client.pem", "lib/composeapps/apps/web.json",
                         "lib/composeapps/docker/config.json", "lib/composeapps/machine-id",
                         "lib/composeapps/ssh/ssh_host_rsa_key", "lib/dropbear/dropbear_rsa_host_key",
                         "lib/docker/volumes/db/_data/row", "lib/docker/overlay2/l/x", "lib/other/file",
                         ".factory_reset_keep_sota"):
                (self.var / path).parent.mkdir(parents=True, exist_ok=True)
                (self.var / path).write_text(path)
            (self.var / "lib/link").symlink_to(top / "outside")
        (top / "outside").mkdir()
        (top / "outside/file").write_text("outside")
        self.identify()

    def identify(self):
        (self.root / "etc/machine-id").write_text(f"{MACHINE}\n")
        (self.root / "etc/ssh/ssh_host_ed25519_key").write_text("key")
        (self.root / "etc/dropbear").mkdir(exist_ok=True)
        (self.root / "etc/dropbear/dropbear_rsa_host_key").write_text("key")

    def opened(self):
        return wish.mounted(self.device, "ext4", "defaults", place=self.var)

    @property
    def places(self):
        return reset.Places(self.var, self.config, self.var / "lib/docker", self.skeleton, self.root)

    def reset(self, keep, **more):
        said = []
        again = reset.carry_out(wish.new(keep, machine=MACHINE, **more), self.device, self.places, said.append)
        subprocess.run(["/sbin/e2fsck", "-fn", str(self.device)], check=True, capture_output=True)
        return again, said

    def files(self):
        with self.opened():
            return {str(path.relative_to(self.var)) for path in self.var.rglob("*")
                    if not path.is_dir() or path.is_symlink()}

    def report(self):
        with self.opened():
            return json.loads((self.config.state_dir / resetnote.NAME).read_text())


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


REPORT = "lib/composeapps/reset.json"
KEYS = ("lib/composeapps/ssh/ssh_host_rsa_key", "lib/dropbear/dropbear_rsa_host_key")
LEFT = {
    "nothing": {"lib/misc/seed", REPORT},
    "registration": {"lib/misc/seed", REPORT, "sota/client.pem", "lib/composeapps/docker/config.json",
                     "lib/composeapps/machine-id", *KEYS},
    "data": {"lib/misc/seed", REPORT, "sota/client.pem", "lib/composeapps/docker/config.json",
             "lib/composeapps/machine-id", *KEYS, "lib/docker/volumes/db/_data/row",
             "sota/compose-apps/web/docker-compose.yml", "sota/compose-apps/web/data/photo"},
}


@pytest.mark.parametrize("keep", wish.KEEP)
def test_what_each_keep_leaves(device, keep):
    again, _said = device.reset(keep)
    assert device.files() == LEFT[keep]
    assert device.report()["kept"] == keep and device.report()["lost"] == ""
    identity = (device.root / "etc/machine-id").read_bytes(), (device.root / "etc/ssh/ssh_host_ed25519_key").exists()
    assert (identity == (b"", False)) == again == (keep == wish.NOTHING)
    assert (device.root / "etc/dropbear/dropbear_rsa_host_key").exists() == (keep != wish.NOTHING)
    assert (device.top / "outside/file").read_text() == "outside"


@pytest.mark.parametrize("keep", wish.KEEP)
def test_the_identity_goes_with_registration_wherever_it_is(device, keep):
    device.config = device.config._replace(identity_dir=device.var / "lib/identity")
    given = {f"lib/identity/{name}" for name in provision.NAMES}
    with device.opened():
        (device.var / "lib/identity").mkdir()
        for path in given | {"lib/identity/other"}:
            (device.var / path).write_text("given")
    device.reset(keep)
    assert device.files() == LEFT[keep] | (set() if keep == wish.NOTHING else given)


@pytest.mark.parametrize("keep", wish.KEEP)
def test_a_reset_that_was_cut_off_anywhere_is_finished_by_the_next(device, keep, monkeypatch):
    real, step = reset.run, 0
    while True:
        step += 1
        count = 0

        def cutting(*words, last=step, **options):
            nonlocal count
            count += 1
            if words[0] != "umount" and count >= last:
                raise Cut(words)
            return real(*words, **options)

        for module in (reset, filesystem, wish):
            monkeypatch.setattr(module, "run", cutting)
        cut = False
        try:
            device.reset(keep)
        except Cut:
            cut = True
        monkeypatch.undo()
        if not cut:
            break
        device.reset(keep)
        assert device.files() >= {"lib/misc/seed", REPORT}
        assert not device.files() & {"lib/other/file", "sota/reset-apps/blobs/b", "lib/docker/overlay2/l/x"}
        device.identify()
    assert step > 2 and device.files() <= LEFT[keep]


def test_an_identity_that_was_drawn_since_stays(device):
    (device.root / "etc/machine-id").write_text("f" * 32)
    again, _said = device.reset(wish.NOTHING)
    assert not again and (device.root / "etc/machine-id").read_text() == "f" * 32
    assert not list((device.root / "etc/ssh").iterdir())


@pytest.mark.parametrize("keep", [wish.REGISTRATION, wish.DATA])
def test_what_cannot_be_read_is_not_kept_and_that_is_told(device, keep):
    with open(device.device, "r+b") as stream:
        stream.write(b"\xa5" * 64 * MEBIBYTE)
    _again, said = device.reset(keep)
    assert device.files() == LEFT["nothing"]
    assert "could not be kept" in device.report()["lost"] and device.report()["kept"] == "nothing"
    assert any("could not be kept" in each for each in said)


@pytest.mark.parametrize("program", ["e2fsck", "mount", "umount"])
def test_a_program_that_fails_wipes_nothing_that_is_to_be_kept(device, program, monkeypatch):
    real = reset.run

    def failing(*words, **options):
        found = real(*words, **options)
        if words[0] == program:
            raise StorageError(f"{program} failed")
        return found

    for module in (reset, wish):
        monkeypatch.setattr(module, "run", failing)
    with pytest.raises(StorageError, match=program):
        device.reset(wish.DATA)
    monkeypatch.undo()
    subprocess.run(["umount", str(device.var)], check=False, capture_output=True)
    device.reset(wish.DATA)
    assert device.files() == LEFT["data"]


@pytest.mark.parametrize("status", [4, 5, 8, 12])
def test_what_can_be_mounted_is_kept_whatever_e2fsck_says(device, status, monkeypatch):
    real = reset.run

    def complaining(*words, **options):
        found = real(*words, **options)
        return (status, "cannot allocate memory") if words[0] == "e2fsck" else found

    monkeypatch.setattr(reset, "run", complaining)
    device.reset(wish.DATA)
    assert device.files() == LEFT["data"] and not device.report()["lost"]


def test_a_reset_that_is_taken_back_leaves_the_identity(device, monkeypatch):
    boot = device.top / "boot"
    boot.mkdir()
    monkeypatch.setattr(wish, "boot_partition", lambda part, writable=False: contextlib.nullcontext(boot))
    asking.ask(None, wish.new(wish.NOTHING), lambda text: None, device.root)
    assert (device.root / "etc/machine-id").read_text() == ""
    assert asking.cancel(None, device.root).machine == MACHINE and wish.read(boot) is None
    assert (device.root / "etc/machine-id").read_text() == f"{MACHINE}\n"
    assert [path.name for path in (device.root / "etc/ssh").iterdir()] == ["ssh_host_ed25519_key"]
    # One that is there is the device's, whatever a wish of before says.
    (device.root / "etc/machine-id").write_text("f" * 32)
    asking.ask(None, wish.new(wish.REGISTRATION), lambda text: None, device.root)
    assert asking.cancel(None, device.root).keep == wish.REGISTRATION
    assert (device.root / "etc/machine-id").read_text() == "f" * 32


def test_a_link_in_place_of_what_is_kept_leads_nowhere(device):
    with device.opened():
        subprocess.run(["rm", "-rf", str(device.var / "lib/docker")], check=True)
        (device.var / "lib/docker").symlink_to(device.top / "outside")
        (device.top / "outside/volumes").mkdir()
        (device.top / "outside/overlay2").mkdir()
    device.reset(wish.DATA)
    assert (device.top / "outside/file").exists() and (device.top / "outside/overlay2").is_dir()


def test_a_wish_is_read_as_it_was_written(tmp_path):
    assert wish.read(tmp_path) is None
    wanted = wish.new(wish.DATA, discard=True)
    wish.write(tmp_path, wanted)
    assert wish.read(tmp_path) == wanted
    wish.clear(tmp_path)
    wish.clear(tmp_path)
    assert wish.read(tmp_path) is None and os.listdir(tmp_path) == []


@pytest.mark.parametrize("length", [0, 1, 40, -2])
def test_a_torn_wish_is_none(tmp_path, length):
    data = wish.dump(wish.new(wish.NOTHING))
    (tmp_path / wish.NAME).write_bytes(data[:length])
    with pytest.raises(CorruptError, match="not whole|damaged"):
        wish.read(tmp_path)


@pytest.mark.parametrize("change", [("nothing", "data"), ('"discard": false', '"discard": true')])
def test_a_changed_wish_is_none(tmp_path, change):
    data = wish.dump(wish.new(wish.NOTHING)).decode()
    (tmp_path / wish.NAME).write_text(data.replace(*change))
    with pytest.raises(CorruptError, match="damaged"):
        wish.read(tmp_path)


def test_a_boot_partition_that_refuses_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(wish, "read", lambda directory: None)
    with pytest.raises(StorageError, match="cannot be read back"):
        wish.write(tmp_path, wish.new(wish.NOTHING))
