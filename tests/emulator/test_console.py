# SPDX-License-Identifier: MIT
"""Commands over the serial console: the exact output and the exit status of each."""

import re

import pytest

from emulator import CommandError, ConsoleError, EmulatorError

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize(("command", "status", "output"), [
    ("true", 0, b""),
    ("false", 1, b""),
    ("exit 42", 42, b""),
    ("kill -9 $$", 137, b""),
    ("no-such-command", 127, b"sh: no-such-command: not found\n"),
    ("echo out; echo err >&2", 0, b"out\nerr\n"),
    ("printf 'no newline'", 0, b"no newline"),
    ("""printf '%s\n' 'it'"'"'s' "a  b" \\\\ '$HOME' `echo x` "é☃" '*' '!!'""", 0,
     "it's\na  b\n\\\n$HOME\nx\né☃\n*\n!!\n".encode()),
    ("for i in 1 2\ndo\n\techo $i # comment\ndone\ncat <<END\nhere 'doc'\nEND\n", 0, b"1\n2\nhere 'doc'\n"),
    (r"printf '\0\1\33[31m\r\n\377\n\n'", 0, b"\0\1\x1b[31m\r\n\xff\n\n"),
    ("printf '%s' '\x03\x04\x1a\x7f\r'", 0, b"\x03\x04\x1a\x7f\r"),
    ("cat; echo end", 0, b"end\n"),
    ("printf '%%b %s' \\\\0101", 0, b"%b \\0101"),
])
def test_output_and_status_are_exact(vm, command, status, output):
    result = vm.run(command, check=False)
    assert (result.raw, result.exit_status) == (output, status)


def test_a_failing_command_raises_with_its_output(vm):
    with pytest.raises(CommandError, match="ended with status 3 in the guest:\nwhy") as caught:
        vm.run("echo why; exit 3")
    assert caught.value.result.exit_status == 3


def test_a_long_command_and_a_long_line_pass_whole(vm):
    text = "".join(f"{number}é" for number in range(4000))
    assert vm.run(f"printf %s {text}").stdout == text


def test_much_output_passes_whole(vm):
    lines = vm.run("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", timeout=60).stdout.splitlines()
    assert lines == [f"line {number}" for number in range(20000)]


def test_kernel_messages_do_not_get_into_the_output(vm):
    result = vm.run("for i in 1 2 3; do echo '<4>a message of the kernel' >/dev/kmsg; echo $i; done")
    assert result.stdout == "1\n2\n3\n"
    assert "a message of the kernel" in vm.run("dmesg").stdout


def test_text_about_a_panic_is_no_panic(vm):
    text = "[    1.0] Kernel panic - not syncing: said by a log"
    assert vm.run(f"echo '{text}'; echo and on").stdout == f"{text}\nand on\n"
    assert vm.run("echo alive").stdout == "alive\n"


def test_nothing_carries_over_to_the_next_command(vm):
    vm.run("cd /tmp; X=1; export X")
    assert vm.run("pwd; echo [$X]").stdout == "/root\n[]\n"


def test_a_command_that_does_not_end_is_interrupted_and_the_console_goes_on(vm):
    with pytest.raises(ConsoleError, match="did not end within"):
        vm.run("echo waiting; while :; do sleep 1000; done", timeout=0.2)
    assert vm.run("echo next").stdout == "next\n"


def test_a_command_no_shell_can_take_is_refused(vm):
    with pytest.raises(EmulatorError, match="NUL"):
        vm.run("echo \0")
    with pytest.raises(EmulatorError, match="too long"):
        vm.run("echo " + "x" * 200_000)
    assert vm.run("echo next").stdout == "next\n"


def test_files_go_both_ways(vm):
    data = bytes(range(256)) * 120
    vm.upload(data, "/tmp/a file's name", mode=0o640)
    assert vm.download("/tmp/a file's name") == data
    assert vm.run("stat -c %a \"/tmp/a file's name\"; ls /tmp | wc -l").stdout == "640\n1\n"
    vm.upload(b"", "/tmp/empty")
    assert vm.download("/tmp/empty") == b""


def test_a_file_that_cannot_be_written_or_read_is_an_error(vm):
    with pytest.raises(CommandError, match="/no-such-directory"):
        vm.upload(b"x", "/no-such-directory/file")
    with pytest.raises(CommandError, match="/no-such-file"):
        vm.download("/no-such-file")


def test_the_console_can_be_handed_over_and_taken_back(vm):
    vm.release_console()
    vm.console.send(b"echo by hand; echo $((40 + 2))\n")
    vm.wait_for_text("42", timeout=10)
    with pytest.raises(ConsoleError, match="nobody is logged in"):
        vm.run("true")
    vm.console.send(b"\n")
    vm.login()
    assert vm.run("echo again").stdout == "again\n"


def test_the_log_tells_when_each_line_came(vm):
    vm.run("echo a line for the log")
    lines = (vm.run_dir / "serial-timed.log").read_text().splitlines()
    assert lines[0] == "--- power-on 1 ---"
    times = [float(re.match(r"\[ *(\d+\.\d{3})\] ", line)[1]) for line in lines[1:]]
    assert times == sorted(times)
    assert any(line.endswith("] a line for the log") for line in lines)
    assert b"\na line for the log\n" in (vm.run_dir / "serial.log").read_bytes()
