# SPDX-License-Identifier: MIT
"""The device that scripts/demo --keep leaves running, here the small guest: found, asked and ended by others."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from demonstration import command
from demonstration.errors import DemoError
from demonstration.keeping import Kept

pytestmark = pytest.mark.qemu

OWNER = """
    import sys
    from demonstration.keeping import Kept
    from emulator import Machine
    kept = Kept({build!r})
    status = kept.begin()
    if status is not None:
        sys.exit(status)
    if {fails!r}:
        sys.exit("demo: it does not boot")
    machine = Machine(kernel={kernel!r}, initrd={initrd!r}, run_dir={run_dir!r}, memory=256)
    try:
        machine.power_on()
        print(machine.pid, flush=True)
        machine.login()
        kept.serve(machine, {{"ports": {{"80": 4000}}}})
    finally:
        machine.close()
"""


@pytest.fixture
def start(guest, tmp_path):
    """Start a process that keeps the small guest; returns the Popen of its first part."""
    started = []

    def begin(fails=False):
        code = textwrap.dedent(OWNER).format(build=str(tmp_path), kernel=str(guest.kernel), initrd=str(guest.initrd),
                                             run_dir=str(tmp_path / "run"), fails=fails)
        started.append(subprocess.Popen(
            [sys.executable, "-B", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}))
        return started[-1]

    yield begin
    Kept(tmp_path).down()
    for process in started:
        process.kill()
        process.communicate()


def test_it_answers_when_whoever_started_it_is_gone_and_ends_when_it_is_told(start, watch, tmp_path, capsys):
    first = start()
    # Ends although the device runs on: nothing of its output is held open.
    out, err = first.communicate(timeout=600)
    assert first.returncode == 0, err
    qemu = watch(int(out))
    kept = Kept(tmp_path)
    assert kept.running() and kept.about() == {"ports": {"80": 4000}}
    assert kept.run("echo to the device; exit 3", 60) == {"exit_status": 3, "stdout": "to the device\n"}
    assert (tmp_path / "demo" / "device.socket").stat().st_mode & 0o077 == 0

    assert command.main(["--run", "echo again"], tmp_path, tmp_path, 0) == 0
    assert capsys.readouterr().out == "again\n"
    assert command.main(["--keep"], tmp_path, tmp_path, 0) == 1
    assert "end it with 'scripts/demo --down'" in capsys.readouterr().err
    with pytest.raises(DemoError, match="'scripts/demo --down'"):
        kept.begin()

    assert command.main(["--down", "--json"], tmp_path, tmp_path, 0) == 0
    assert json.loads(capsys.readouterr().out) == {"device": True, "registry": False}
    assert qemu.ended() and not kept.running()


def test_it_ends_when_the_device_is_switched_off_or_its_process_is_killed(start, watch, tmp_path):
    out, _ = start().communicate(timeout=600)
    qemu, kept = watch(int(out)), Kept(tmp_path)
    os.kill(int(out), signal.SIGKILL)
    assert qemu.ended()
    deadline = time.monotonic() + 60
    while kept.running():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(DemoError, match="no device runs: scripts/demo --keep"):
        kept.run("true", 60)


def test_an_interrupt_while_it_boots_ends_it(start, watch, tmp_path):
    first = start()
    pid = int(first.stdout.readline())
    qemu = watch(pid)
    first.send_signal(signal.SIGINT)
    assert first.wait(60) != 0
    assert qemu.ended() and not Kept(tmp_path).running()


def test_a_device_that_does_not_boot_is_told_by_the_first_part(start, tmp_path):
    first = start(fails=True)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1 and "it does not boot" in err
    assert not Kept(tmp_path).running()


def test_without_a_device_there_are_sentences(tmp_path, capsys):
    assert command.main(["--run", "true"], tmp_path, tmp_path, 0) == 1
    assert capsys.readouterr().err == "demo: no device runs: scripts/demo --keep leaves one running\n"
    assert command.main(["--down"], tmp_path, tmp_path, 0) == 0
    assert capsys.readouterr().out == "the device did not run; the registry did not run\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "said"), [
    (["--keep", "--no-boot"], "--keep leaves a device running"), (["--down", "--keep"], "--down goes with nothing"),
    (["--run", "true", "--update"], "--run goes with nothing"),
    (["--run", "true", "h.test/f/a:1"], "--run goes with nothing"),
])
def test_what_does_not_go_together(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        command.parse(arguments)
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_a_picture_has_what_was_shown_and_nothing_from_afar(tmp_path):
    from demonstration import capture
    recorded = capture.console()
    recorded.print("[green]✓[/] building the image [dim]7.0 s[/]")
    capture.write(recorded, tmp_path / "demo.svg")
    text = (tmp_path / "demo.svg").read_text()
    assert "building&#160;the&#160;image" in text and "scripts/demo" in text
    assert "url(http" not in text and "font-face" not in text and "<script" not in text
