# SPDX-License-Identifier: MIT
"""Long runs: their output in a file, and nothing left behind when they are interrupted."""

import os
import sys

import pytest

from layercheck import process


def test_output_and_exit_status(tmp_path):
    lines = []
    program = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    log = tmp_path / "log" / "run.log"
    assert process.run([sys.executable, "-c", program], log, os.environ, tmp_path, on_line=lines.append) == 3
    assert sorted(lines) == ["one", "two"]
    assert sorted(log.read_text().split()) == ["one", "two"]


def test_an_interruption_ends_the_program(tmp_path):
    started = []

    def interrupt(line):
        started.append(int(line))
        raise KeyboardInterrupt

    program = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    with pytest.raises(KeyboardInterrupt):
        process.run([sys.executable, "-c", program], tmp_path / "run.log", os.environ, tmp_path, on_line=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_logins_are_left_out():
    assert process.without_logins("fatal: 'https://me:secret@host/x'") == "fatal: 'https://host/x'"
