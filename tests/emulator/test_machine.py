# SPDX-License-Identifier: MIT
"""Power, disks, and boots that fail."""

import json
import subprocess

import pytest

from emulator import BootError, ConsoleError, Drive, EmulatorError, ImageDescription, Machine
from support import guest as guests

pytestmark = pytest.mark.qemu


def test_runs_do_not_see_each_others_writes(new_machine, disk):
    with new_machine(disk=disk) as one, new_machine(disk=disk) as other:
        one.run("echo mine >/mnt/marker; sync")
        assert other.run("cat /mnt/marker").stdout == "from the base\n"
        assert one.run("cat /mnt/marker").stdout == "mine\n"
        assert one.overlay.exists()
    assert not one.overlay.exists()
    # The fixture of the disk checks that the base is unchanged.


def test_a_power_cut_keeps_what_was_synced_and_no_more(new_machine, disk):
    with new_machine(disk=disk) as machine:
        machine.run("echo synced >/mnt/file; sync; echo lost >/mnt/lost")
        before = machine.pid
        machine.power_cut()
        assert not machine.running
        with pytest.raises(EmulatorError, match="the machine is off"):
            machine.run("true")
        machine.start()
        assert machine.pid != before
        assert machine.run("cat /mnt/file; ls /mnt/lost", check=False).stdout.startswith("synced\nls: /mnt/lost")
    log = (machine.run_dir / "serial-timed.log").read_text()
    assert "--- power-on 1 ---" in log
    assert "--- power-on 2 ---" in log


def test_shutdown_is_clean_and_reset_boots_again(new_machine, disk):
    with new_machine(disk=disk) as machine:
        machine.run("touch /tmp/gone; echo kept >/mnt/kept; sync")
        machine.reset()
        assert machine.run("ls /tmp; cat /mnt/kept").stdout == "kept\n"
        machine.run("echo written >/mnt/unsynced")
        machine.shutdown()
        assert not machine.running
        machine.start()
        assert machine.run("cat /mnt/unsynced").stdout == "written\n"


def test_a_restart_is_waited_for_when_the_command_that_asks_for_it_gives_no_answer(new_machine, disk):
    with new_machine(disk=disk) as machine:
        machine.run("echo kept >/mnt/kept; sync")
        # As systemd does: it ends the console's shell first.
        machine.restart_by("kill -9 $PPID; reboot -f")
        assert machine.run("cat /mnt/kept").stdout == "kept\n"


def test_the_overlay_is_kept_when_a_test_fails(new_machine, disk):
    with pytest.raises(ZeroDivisionError), new_machine(disk=disk) as machine:
        raise ZeroDivisionError
    assert machine.overlay.exists()
    assert not machine.running


def test_further_drives(new_machine, disk, tmp_path):
    extra = guests.make_disk(tmp_path / "extra, with a comma.img", {"hello": b"there\n"})
    drives = [Drive(extra, serial="EXTRA"), Drive(extra.with_name("raw"), readonly=True)]
    drives[1].path.write_bytes(b"raw data".ljust(4096, b"\0"))
    with new_machine(disk=disk, drives=drives) as machine:
        assert machine.run("cat /sys/block/vdb/serial").stdout == "EXTRA"
        machine.run("mkdir /x; mount -t ext4 /dev/vdb /x; cp /x/hello /x/copy; umount /x")
        assert machine.run("head -c 8 /dev/vdc").stdout == "raw data"
        assert machine.run("echo x >/dev/vdc", check=False).exit_status != 0
        machine.shutdown()
    copied = subprocess.run(["debugfs", "-R", "cat /copy", str(extra)], capture_output=True, check=True)
    assert copied.stdout == b"there\n"


def test_a_panic_while_booting_is_reported_with_the_consoles_end(new_machine):
    machine = new_machine("guest.panic")
    with pytest.raises(BootError, match="panicked") as caught:
        machine.start()
    assert "Kernel panic - not syncing: sysrq triggered crash" in caught.value.tail
    assert "Kernel panic - not syncing: sysrq triggered crash" in str(caught.value)
    assert "Run /init" not in caught.value.tail
    assert not machine.running


def test_a_boot_into_an_emergency_shell_is_reported(new_machine):
    with pytest.raises(BootError, match="emergency shell"):
        new_machine("guest.emergency").start()


def test_a_boot_that_hangs_is_reported_with_the_consoles_end(new_machine):
    machine = new_machine("guest.hang")
    try:
        machine.power_on()
        machine.wait_for_text("the guest hangs", timeout=60)
        with pytest.raises(BootError, match="reached no prompt within") as caught:
            machine.login(timeout=0.2)
    finally:
        machine.close()
    assert caught.value.tail.endswith("the guest hangs")


def test_a_panic_under_a_command_is_reported(new_machine):
    with new_machine() as machine:
        with pytest.raises(ConsoleError, match="Kernel panic - not syncing: sysrq"):
            machine.run("echo c >/proc/sysrq-trigger", timeout=600)
        machine.power_cut()
        machine.start()
        assert machine.run("echo alive").stdout == "alive\n"


def test_qemu_that_dies_under_a_command_is_reported(new_machine):
    with new_machine() as machine, pytest.raises(ConsoleError, match="the guest ended while 'poweroff -f"):
        machine.run("poweroff -f; sleep 100")


def test_a_machine_qemu_cannot_make_is_reported_with_its_words(new_machine, tmp_path):
    with pytest.raises(EmulatorError, match="no-such-device"):
        new_machine(extra_arguments=["-device", "no-such-device"]).start()


def image_file(directory, **changes):
    """Write an image description with its files; return its path."""
    document = {"machine": "qemux86-64", "disk": "disk.ext4", "kernel": "vmlinuz", "initrd": "initrd.img",
                "cmdline": "root=/dev/vda", "apps": {"web": "hub.demo.test/demo/web@sha256:00"}, **changes}
    for name in ("disk.ext4", "vmlinuz", "initrd.img"):
        (directory / name).touch()
    path = directory / "image.json"
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path


def test_an_image_description_is_read_relative_to_its_place(tmp_path):
    image = ImageDescription.load(image_file(tmp_path))
    assert image.disk == tmp_path / "disk.ext4"
    assert image.kernel == tmp_path / "vmlinuz"
    assert image.initrd == tmp_path / "initrd.img"
    assert image.cmdline == "root=/dev/vda"
    assert ImageDescription.load(image_file(tmp_path, initrd=None)).initrd is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"disk": "missing.ext4"}, "'disk' names missing.ext4, which does not exist"),
    ({"kernel": None}, "'kernel' must be a text"),
    ({"cmdline": 7}, "'cmdline' must be a text"),
])
def test_a_bad_image_description_names_the_key(tmp_path, changes, message):
    with pytest.raises(EmulatorError, match=message):
        Machine(image_file(tmp_path, **changes), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "\0"])
def test_what_is_no_image_description_is_refused(tmp_path, text):
    path = tmp_path / "image.json"
    path.write_text(text)
    with pytest.raises(EmulatorError, match="image.json is not an image description"):
        ImageDescription.load(path)


def test_a_missing_image_says_how_to_build_one(tmp_path):
    with pytest.raises(EmulatorError, match="scripts/build-image"):
        ImageDescription.load(tmp_path / "image.json")
