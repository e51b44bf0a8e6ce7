# SPDX-License-Identifier: MIT
"""The callback program: what it is told, what its answer does, and what a bad one cannot do."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from composeapps import programs
from composeapps.cli.config import Config
from composeapps.update import callback

SOURCE = "hub.demo.test/factory/web@sha256:" + "ab" * 32
TARGET = "hub.demo.test/factory/web@sha256:" + "cd" * 32
# Long enough for a program that ends by itself on a machine that is busy.
ENOUGH = 60


class Device:
    """A configuration with a program, and what was told."""

    def __init__(self, root):
        self.program, self.told = root / "callback", []
        self.config = Config(callback_program=self.program, state_dir=root)

    def script(self, text, mode=0o755, interpreter="/bin/sh"):
        self.program.write_text(f"#!{interpreter}\n{text}\n")
        self.program.chmod(mode)

    def call(self, message, result="", limit=ENOUGH, **variables):
        return callback.call(self.config, message, result, limit=limit, notify=self.told.append, **variables)

    def environment(self, message, result="", **variables):
        """Return the program's environment as it saw it itself."""
        self.script(f'tr "\\0" "\\n" < /proc/$$/environ > {self.config.state_dir}/seen')
        assert self.call(message, result, **variables) == ""
        lines = (self.config.state_dir / "seen").read_text().splitlines()
        return dict(line.partition("=")[::2] for line in lines)


@pytest.fixture
def device(tmp_path):
    callback._unusable.clear()
    return Device(tmp_path)


def test_without_a_program_nothing_is_done(tmp_path):
    assert callback.call(Config(state_dir=tmp_path), callback.INSTALL_PRE, app="web", source=SOURCE) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_program_gets_lmps_variables_and_ours_and_nothing_of_the_caller(device, monkeypatch):
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/secret")
    monkeypatch.setenv("LD_PRELOAD", "")
    seen = device.environment(callback.INSTALL_POST, callback.FAILED, app="web", source=SOURCE, target=TARGET,
                              reason="service web\nis unhealthy", attempt=2)
    current = Path(seen.pop("CURRENT_TARGET"))
    assert seen == {
        "MESSAGE": "install-post", "RESULT": "FAILED", "CURRENT_TARGET_NAME": SOURCE, "INSTALL_TARGET_NAME": TARGET,
        "COMPOSEAPPS_APP": "web", "COMPOSEAPPS_REASON": "service web is unhealthy", "COMPOSEAPPS_ATTEMPT": "2",
        "COMPOSEAPPS_STATE_DIR": str(device.config.state_dir), "PATH": programs.ENVIRONMENT["PATH"], "HOME": "/root",
        "LANG": "C.UTF-8",
    }
    # As a program for LmP reads it.
    shown = subprocess.run(["sh", "-c", '. "$0"; echo "$TARGET_NAME"', current], capture_output=True, text=True,
                           check=True)
    assert shown.stdout.strip() == SOURCE


def test_what_there_is_nothing_to_say_about_is_not_set(device):
    seen = device.environment(callback.DOWNLOAD_PRE, app="web", target=TARGET)
    assert {"RESULT", "CURRENT_TARGET", "CURRENT_TARGET_NAME", "COMPOSEAPPS_REASON"} & set(seen) == set()


def test_a_reason_behind_the_result_is_told_apart(device):
    seen = device.environment(callback.DOWNLOAD_POST, "FAILED: no route to host", app="web", target=TARGET)
    assert (seen["RESULT"], seen["COMPOSEAPPS_REASON"]) == ("FAILED", "no route to host")


def test_hostile_values_reach_no_shell(device):
    evil = 'x"; touch /tmp/owned; $(id)\0'
    seen = device.environment(callback.INSTALL_PRE, app="web", source=evil, target=evil)
    assert seen["INSTALL_TARGET_NAME"] == 'x"; touch /tmp/owned; $(id)' and "CURRENT_TARGET" not in seen


@pytest.mark.parametrize("message", [callback.DOWNLOAD_PRE, callback.INSTALL_PRE])
def test_a_program_can_put_off_a_step(device, message):
    device.script('[ "$MESSAGE" != ' + message + " ] || exit 3")
    answer = device.call(message, app="web")
    assert str(device.program) in answer and message in answer and "3" in answer


@pytest.mark.parametrize("message", [
    callback.DOWNLOAD_POST, callback.INSTALL_POST, callback.INSTALL_FINAL_PRE, callback.ROLLBACK_PRE,
    callback.ROLLBACK_POST, callback.REJECTED])
def test_after_the_deed_a_no_changes_nothing_and_is_told(device, message):
    device.script("exit 3")
    assert device.call(message) == ""
    assert len(device.told) == 1 and "exit status 3" in device.told[0]


def test_a_crash_is_no_answer(device):
    device.script("kill -SEGV $$")
    assert device.call(callback.INSTALL_PRE) == ""
    assert "signal 11" in device.told[0]


def test_its_output_is_handed_on_line_by_line(device):
    device.script("echo one; echo two >&2; echo; printf '\\377three'")
    assert device.call(callback.DOWNLOAD_PRE) == ""
    assert device.told == ["callback download-pre: one", "callback download-pre: two",
                           "callback download-pre: \ufffdthree"]


def test_a_line_without_an_end_does_not_fill_the_memory(device):
    device.script("head -c 3000000 /dev/zero | tr '\\0' x")
    assert device.call(callback.DOWNLOAD_PRE) == ""
    assert sum(len(line) for line in device.told) <= 3.1e6
    assert max(len(line) for line in device.told) <= programs.MAX_LINE + 100


def test_by_default_it_goes_to_standard_error(device, capfd):
    device.script("echo hello")
    callback.call(device.config, callback.DOWNLOAD_PRE)
    assert capfd.readouterr() == ("", "callback download-pre: hello\n")


def test_it_reads_nothing_of_ours(device):
    device.script("cat; ls -l /proc/self/fd | grep -c -v -e pipe: -e /dev/null -e /proc -e total -e callback")
    read, write = os.pipe()
    stdin = os.dup(0)
    os.write(write, b"our own input\n")
    os.close(write)
    os.dup2(read, 0)
    try:
        device.call(callback.DOWNLOAD_POST)
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
        os.close(read)
    assert device.told[0] == "callback download-post: 0"


def test_one_that_does_not_end_is_killed_with_all_that_it_started(device):
    device.script("(exec sleep 4000) & echo $!; (exec sleep 4001) & echo $!; wait")
    assert device.call(callback.INSTALL_PRE, limit=3) == ""
    children = [int(line.rpartition(" ")[2]) for line in device.told[:2]]
    assert "took longer than 3 s" in device.told[2] and len(children) == 2
    deadline = time.monotonic() + ENOUGH
    # Whoever adopted them may need a moment to take their exit status.
    while any(_lives(child) for child in children):
        assert time.monotonic() < deadline
        os.sched_yield()


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_it_leaves_in_the_background_is_not_waited_for(device):
    device.script("(exec sleep 4000) & echo $!")
    try:
        assert device.call(callback.DOWNLOAD_PRE) == ""
        assert len(device.told) == 1, "a time limit was run into"
    finally:
        os.kill(int(device.told[0].rpartition(" ")[2]), 9)


def test_an_interruption_ends_it_too(device):
    device.script("echo $$; exec sleep 4000")

    def notify(line):
        device.told.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callback.call(device.config, callback.INSTALL_PRE, limit=ENOUGH, notify=notify)
    assert not _lives(int(device.told[0].rpartition(" ")[2]))


@pytest.mark.parametrize("make, why", [
    (lambda device: None, "does not exist"),
    (lambda device: device.script("exit 3", mode=0o644), "is not an executable file"),
    (lambda device: device.program.mkdir(), "is not an executable file"),
    (lambda device: device.script("exit 3", interpreter="/no/such/shell"), "cannot be run"),
    (lambda device: (device.program.write_bytes(b"\x00\x01"), device.program.chmod(0o755)), "cannot be run"),
])
def test_one_that_cannot_be_run_is_told_once_and_the_update_goes_on(device, make, why):
    make(device)
    assert device.call(callback.DOWNLOAD_PRE, app="web") == ""
    assert device.call(callback.INSTALL_PRE, app="web") == ""
    (sentence,) = device.told
    assert why in sentence and str(device.program) in sentence and "callback_program" in sentence


def test_a_state_directory_that_cannot_be_written_costs_one_variable(device, tmp_path):
    (tmp_path / "file").write_text("")
    device.config = device.config._replace(state_dir=tmp_path / "file" / "state")
    device.script(f'echo "$CURRENT_TARGET_NAME $CURRENT_TARGET" > {tmp_path}/seen')
    assert device.call(callback.INSTALL_PRE, source=SOURCE) == ""
    assert (tmp_path / "seen").read_text() == f"{SOURCE} \n"


def test_it_stands_in_the_configuration_as_lmp_has_it(tmp_path):
    from composeapps.cli import config

    (tmp_path / "config.toml").write_text('[pacman]\ncallback_program = "/usr/bin/callback-handler"\n')
    assert config.load(tmp_path / "config.toml").callback_program == Path("/usr/bin/callback-handler")
