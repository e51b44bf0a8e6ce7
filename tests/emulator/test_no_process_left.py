# SPDX-License-Identifier: MIT
"""QEMU ends with whoever started it, in whatever way that ends."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from emulator.process import Process

pytestmark = pytest.mark.qemu

OWNER = """
    import sys
    from emulator import Machine
    machine = Machine(kernel={kernel!r}, initrd={initrd!r}, run_dir={run_dir!r})
    machine.power_on()
    print(machine.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(guest, tmp_path):
    """A Python process that has powered on a machine; yields it and QEMU's process id."""
    code = textwrap.dedent(OWNER).format(
        kernel=str(guest.kernel), initrd=str(guest.initrd), run_dir=str(tmp_path / "run"),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_qemu_ends_when_its_owner_is_killed(owner, watch, number):
    process, qemu = owner
    watched = watch(qemu)
    process.send_signal(number)
    assert watched.ended()


def test_qemu_ends_when_its_owner_ends_without_closing_the_machine(owner, watch):
    process, qemu = owner
    watched = watch(qemu)
    process.stdin.close()
    assert watched.ended()


def test_qemu_ends_when_its_supervisor_is_killed(new_machine, watch):
    machine = new_machine()
    try:
        machine.power_on()
        watched = watch(machine.pid)
        with open(f"/proc/{machine.pid}/stat") as stat:
            supervisor = int(stat.read().rpartition(")")[2].split()[1])
        assert supervisor != os.getpid()
        os.kill(supervisor, signal.SIGKILL)
        assert watched.ended()
        assert machine.wait(30)
    finally:
        machine.close()


def test_qemu_ends_after_an_exception(new_machine, watch):
    with pytest.raises(ZeroDivisionError), new_machine() as machine:
        watched = watch(machine.pid)
        raise ZeroDivisionError
    assert watched.ended(timeout=0)


def test_qemu_outlives_the_thread_that_started_it(new_machine):
    machine = new_machine()
    try:
        starter = threading.Thread(target=machine.power_on)
        starter.start()
        starter.join()
        machine.login()
        assert machine.run("echo alive").stdout == "alive\n"
    finally:
        machine.close()


def test_qemu_is_out_of_reach_of_the_terminals_interrupt(new_machine):
    machine = new_machine()
    try:
        machine.power_on()
        assert os.getpgid(machine.pid) != os.getpgid(0)
        assert os.getsid(machine.pid) != os.getsid(0)
    finally:
        machine.close()


def test_no_descriptor_but_its_own_reaches_the_program(tmp_path):
    out = tmp_path / "out"
    with open(tmp_path / "other", "w") as other:
        os.set_inheritable(other.fileno(), False)
        process = Process(["ls", "-l", "/proc/self/fd"], out)
        assert process.wait(30) == 0
    assert "other" not in out.read_text()


def test_the_exit_status_of_the_program_is_passed_on(tmp_path):
    assert Process(["sh", "-c", "exit 7"], tmp_path / "out").wait(30) == 7
    assert Process(["sh", "-c", "kill -9 $$"], tmp_path / "out").wait(30) == 137
