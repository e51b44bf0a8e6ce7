# SPDX-License-Identifier: MIT
"""The command scripts/run-qemu, as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

import hostsetup

pytestmark = pytest.mark.qemu

RUN_QEMU = hostsetup.TOP / "scripts" / "run-qemu"


@pytest.fixture
def image(guest, disk, tmp_path):
    """The description of an image that boots the small guest."""
    path = tmp_path / "small.json"
    path.write_text(json.dumps({
        "machine": "qemux86-64", "cmdline": guest.cmdline, "apps": {},
        "kernel": os.path.relpath(guest.kernel.resolve(), tmp_path.resolve()),
        "initrd": os.path.relpath(guest.initrd.resolve(), tmp_path.resolve()),
        "disk": os.path.relpath(disk.resolve(), tmp_path.resolve()),
    }))
    return path


def run_qemu(*arguments):
    return subprocess.run(
        [sys.executable, str(RUN_QEMU), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )


def test_commands_print_and_the_first_that_fails_ends_with_its_status(image):
    done = run_qemu(image, "--memory", 256, "--command", "cat /mnt/marker", "--command", "echo no; exit 9",
                    "--command", "echo never")
    assert done.stdout == "from the base\nno\n", done.stderr
    assert done.returncode == 9
    assert "'echo no; exit 9' ended with status 9" in done.stderr


def test_results_as_json_with_a_forward(image):
    done = run_qemu(image, "--memory", 256, "--forward", "0:80", "--keep", "--json", "--command", "echo x >/mnt/marker")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["commands"][0]["exit_status"] == 0
    assert document["commands"][0]["stdout"] == ""
    assert document["boot_seconds"] > 0
    assert 0 < document["forwards"]["80"] < 65536
    assert Path(document["run_dir"], "overlay.qcow2").exists()
    assert Path(document["run_dir"], "serial.log").exists()


def test_the_console_is_there_to_type_on(image):
    command = pexpect.spawn(
        sys.executable, [str(RUN_QEMU), str(image), "--memory", "256"], timeout=300, dimensions=(24, 200),
    )
    try:
        command.expect_exact("root@tiny:~# ")
        command.send("echo by ha''nd\r")
        command.expect_exact("by hand")
        command.send("\x01?")
        command.expect_exact("Ctrl-A X quits")
        command.send("\x01x")
        command.expect(pexpect.EOF)
        command.wait()
        assert command.exitstatus == 0
    finally:
        command.close(force=True)


def test_a_guest_that_powers_off_ends_the_command(image):
    command = pexpect.spawn(sys.executable, [str(RUN_QEMU), str(image), "--memory", "256"], timeout=300)
    try:
        command.expect_exact("root@tiny:~# ")
        command.send("poweroff -f\r")
        command.expect_exact("the machine is off")
        command.expect(pexpect.EOF)
        command.wait()
        assert command.exitstatus == 0
    finally:
        command.close(force=True)


@pytest.mark.parametrize(("arguments", "status", "message"), [
    (["--forward", "80"], 2, "'80' is not HOST:GUEST"),
    (["--forward", "0:0"], 2, "'0:0' is not HOST:GUEST"),
    (["--memory", "much"], 2, "'much' is not a number of megabytes"),
    (["--network", "none", "--forward", "0:80", "--command", "true"], 2, "leave out --network none"),
    (["--json"], 2, "name a command"),
    ([], 2, "there is no terminal here"),
    (["/no/such/image.json", "--command", "true"], 125, "scripts/build-image"),
])
def test_what_makes_no_sense_is_refused_in_a_sentence(arguments, status, message):
    done = run_qemu(*arguments)
    assert done.returncode == status
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_boot_that_fails_shows_the_consoles_end(image):
    document = json.loads(image.read_text())
    image.write_text(json.dumps({**document, "cmdline": document["cmdline"] + " guest.panic"}))
    done = run_qemu(image, "--memory", 256, "--command", "true")
    assert done.returncode == 125
    assert "Kernel panic - not syncing: sysrq triggered crash" in done.stderr
    assert "Traceback" not in done.stderr
