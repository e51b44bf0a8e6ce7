# SPDX-License-Identifier: MIT
"""The power goes at any block write of a factory reset: the next start finishes it, and the factory apps can start.

What a reset writes to the boot, root and data partitions of one disk is recorded; disks as power cuts leave them are
put together from that, at the flushes and between, and what a boot does before the data partition is mounted runs on
each.
"""

import contextlib
import os
from pathlib import Path

import pytest

from composeapps.cli import data_partition
from composeapps.cli.config import Config
from composeapps.disk import asking, reset, table, wish
from composeapps.records import resetnote
from composeapps.store.restore import from_factory
from composeapps.store.store import Store
from crash import blocklog, contents, disks, engines, namespaces, replay, states
from crash.namespaces import HOME
from crash.recorder import Export

pytestmark = [pytest.mark.root, pytest.mark.slow]

# More are tried by hand.
STATES = int(os.environ.get("COMPOSEAPPS_TEST_RESET_CUTS", "5"))
MEBIBYTE = 1 << 20
# Partition: first MiB, size in MiB.
LAYOUT = {"boot": (1, 8), "root": (9, 16), "data": (25, 64)}
# Without checksums: half of a superblock, which a disk would have to write half of a sector for, is no matter here.
MAKE_PLAIN = ("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum", "-L")
MAKE_FAT = ("mkfs.vfat", "-n")
MAKE_EXT4 = ("mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-L")
MACHINE = "0123456789abcdef0123456789abcdef"
MINE = ("sota/compose-apps/web/data/photo", "sota/client.pem", "lib/composeapps/docker/config.json",
        "lib/docker/volumes/db/_data/row", "lib/docker/overlay2/l/x", "lib/other/file")
STAYS = {wish.NOTHING: set(), wish.REGISTRATION: set(MINE[1:3]), wish.DATA: set(MINE[:4])}


class Disk:
    """The partitions of a file as devices, in place of a table.Disk; a context manager."""

    def __init__(self, file):
        self.device, self._stack, self._parts = Path(file), contextlib.ExitStack(), {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for number, (name, (start, size)) in enumerate(LAYOUT.items(), 1):
                device = disks.run("losetup", "--direct-io=on", "--offset", start * MEBIBYTE, "--sizelimit",
                                   size * MEBIBYTE, "--find", "--show", self.device).strip()
                stack.callback(disks.run, "losetup", "--detach", device)
                self._parts[name] = table.Partition(device, number, start * 2048, size * 2048)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def partition(self, name):
        return self._parts[name]

    def room_behind(self, _part):
        return 0

    def mounted(self, name, options="rw"):
        """Mount a partition where the tests have it."""
        place = HOME / name
        place.mkdir(exist_ok=True)
        return wish.mounted(self._parts[name].device, fat() if name == "boot" else "ext4", options, place=place)


def fat():
    """Return the type of the boot partition's file system: the kernel of a machine for tests may have no FAT."""
    return "vfat" if "vfat" in Path("/proc/filesystems").read_text() else "ext4"


def boot_partition(part, writable=False):
    return wish.mounted(part.device, fat(), "rw" if writable else "ro")


def places():
    return reset.Places(HOME / "data", config(), HOME / "data/lib/docker", HOME / "skeleton", HOME / "root")


def config():
    var = HOME / "data"
    return Config(store=var / "sota/reset-apps", compose_root=var / "sota/compose-apps",
                  state_dir=var / "lib/composeapps")


def prepare_disk(image):
    """Make a device that has been used; the factory store and the skeleton lie beside it."""
    world = contents.build(HOME / "factory", "reset", count=2, small=4, large=0)
    (HOME / "skeleton/lib/misc").mkdir(parents=True)
    (HOME / "skeleton/lib/misc/seed").write_text("seed")
    with open(image, "wb") as stream:
        stream.truncate(90 * MEBIBYTE)
    with Disk(image) as disk:
        for name in LAYOUT:
            maker = MAKE_EXT4 if name == "data" else MAKE_PLAIN if name == "root" or fat() == "ext4" else MAKE_FAT
            disks.run(*maker, name, disk.partition(name).device)
        with disk.mounted("root"):
            (HOME / "root/etc/ssh").mkdir(parents=True)
            (HOME / "root/etc/machine-id").write_text(f"{MACHINE}\n")
            (HOME / "root/etc/ssh/ssh_host_ed25519_key").write_text("key")
        with disk.mounted("data"):
            contents.fill_store(HOME / "factory", HOME / "data/sota/reset-apps")
            for path in MINE:
                (HOME / "data" / path).parent.mkdir(parents=True, exist_ok=True)
                (HOME / "data" / path).write_text(path)
    return world


def start(disk):
    """Do what a boot does, once more where it asks for that; return what it said."""
    said = []
    with disk.mounted("root"):
        while data_partition.start(disk, "", places, lambda text, _level="": said.append(str(text))):
            said.append("again")
    return said


def look(disk, keep, world):
    """Return what is wrong after a start, a list, and whether the reset took place."""
    data, problems = disk.partition("data").device, []
    disks.run("e2fsck", "-fn", data)
    with disk.mounted("boot", "ro"):
        problems += ["the wish is still there"] if (HOME / "boot" / wish.NAME).exists() else []
    with disk.mounted("root"):
        identity = ((HOME / "root/etc/machine-id").read_text().strip() == MACHINE
                    and (HOME / "root/etc/ssh/ssh_host_ed25519_key").exists())
    with disk.mounted("data"):
        left = {path for path in MINE if (HOME / "data" / path).exists()}
        note = resetnote.read(config().state_dir)
        if note is None:
            # The power went before the wish was there: nothing has happened.
            return problems + ([] if left == set(MINE) and identity else [f"without a reset: {sorted(left)}"]), False
        problems += [f"after a reset there is {sorted(left)}"] if left != STAYS[keep] else []
        problems += [f"the note says {note}"] if (note["kept"], note["lost"]) != (keep, "") else []
        problems += [f"{path} has other content" for path in left if (HOME / "data" / path).read_text() != path]
        problems += ["the skeleton is not there"] if not (HOME / "data/lib/misc/seed").exists() else []
        if identity != (keep != wish.NOTHING):
            problems.append("the identity " + ("of before is still there" if identity else "is gone"))
        store = Store(config().store)
        problems += ["an app of before is listed"] if list(store.list_apps()) else []
        for name in sorted(world.apps):
            from_factory(store, HOME / "factory", name)
        if {str(ref) for ref in store.list_apps()} != set(world.apps.values()):
            problems.append("not all factory apps came back")
        problems += [problem for path in store.blobs.iterdir() if (problem := store.verify(f"sha256:{path.name}"))]
    return problems, True


def cut_everywhere(engine, keep):
    """Record a reset, and try the cuts; return {state: (problems, reset or not, what the start said)}."""
    base, image = HOME / "base.img", HOME / "disk.img"
    wish.boot_partition = boot_partition
    world = prepare_disk(base)
    disks.copy(base, image)
    export = Export(engine.qemu, image, HOME)
    with export as file, Disk(file) as disk:
        with disk.mounted("root"):
            asking.ask(disk.partition("boot"), wish.new(keep), lambda text: None, HOME / "root")
        start(disk)
        export.mark("end")
    found = {}
    with blocklog.BlockLog(export.log_path) as log:
        enumeration = states.Enumeration(log.entries, export.marks[-1][0])
        with replay.Replay(base, log, HOME) as planned:
            chosen = states.choose(planned, enumeration, STATES, keep)
        with replay.Replay(base, log, HOME) as each:
            for state, _fingerprint in chosen:
                each.make(state, HOME / "state.img")
                with Disk(HOME / "state.img") as disk:
                    said = start(disk)
                    found[state.name] = (*look(disk, keep, world), said)
    return found


@pytest.mark.parametrize("keep", wish.KEEP)
def test_a_reset_whose_power_goes_is_finished_by_the_next_start(keep):
    found = namespaces.isolated(cut_everywhere, engines.find("stock"), keep)
    assert len(found) == STATES
    assert {name: (problems, said) for name, (problems, _done, said) in found.items() if problems} == {}
    print(f"{len(found)} cuts, {sum(done for _problems, done, _said in found.values())} of them in a reset")
