# SPDX-License-Identifier: MIT
"""The command as a process: what it prints arrives, whoever reads it, and its exit status is the command's."""

import subprocess
import sys
from pathlib import Path

import pytest

import composeapps

LIB = Path(composeapps.__file__).parents[1]
START = [sys.executable, "-I", "-c",
         f"import sys; sys.path.insert(0, {str(LIB)!r}); from composeapps.cli.main import program; program()"]


def run(*words, **options):
    return subprocess.run([*START, *words], stderr=subprocess.PIPE, text=True, check=False, **options)


def test_all_that_it_prints_is_there_at_the_end():
    done = run("completion", "bash", stdout=subprocess.PIPE)
    assert done.returncode == 0 and len(done.stdout) > 1000 and done.stdout.endswith("\n")
    assert run("version", stdout=subprocess.PIPE).stdout.startswith("composeapps")
    assert run("--help", stdout=subprocess.PIPE).stdout.startswith("Usage: composeapps")


@pytest.mark.parametrize(("words", "status"), [(["version"], 0), (["show", "none"], 3), (["nonsense"], 2)])
def test_the_exit_status_is_the_commands(tmp_path, words, status):
    options = [] if words[0] in ("version", "nonsense") else ["--store", str(tmp_path)]
    assert run(*words, *options, stdout=subprocess.DEVNULL).returncode == status


def test_a_reader_that_has_gone_is_no_error():
    process = subprocess.Popen([*START, "version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 0
    process.stderr.close()


def test_output_that_cannot_be_written_is_said():
    with open("/dev/full", "w") as full:
        done = run("version", stdout=full)
    assert done.returncode == 7 and "No space left" in done.stderr and "Traceback" not in done.stderr
