# SPDX-License-Identifier: MIT
"""Help and wrong usage of the commands in scripts/ have the form that the agent's commands have."""

import os
import subprocess
import sys

import pytest

import commandlines
import hostsetup
import suite
from support import helps

SCRIPTS = hostsetup.TOP / "scripts"


def run(name, *words):
    """Run a command; what the setup of its Python packages says, where they are not there yet, does not count."""
    done = subprocess.run([sys.executable, SCRIPTS / name, *words], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "60", "PYTHONDONTWRITEBYTECODE": "1"})
    done.stderr = "".join(line for line in done.stderr.splitlines(True) if not line.startswith("setup: "))
    return done


def test_every_command_is_known():
    assert {*commandlines.SCRIPTS, "composeapps"} == {path.name for path in SCRIPTS.iterdir() if path.is_file()}


@pytest.mark.parametrize("columns", [200, 80, 60, 40])
@pytest.mark.parametrize("name", commandlines.SCRIPTS)
def test_no_line_is_wider_than_the_terminal(name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    helps.check_width(commandlines.parser(name).format_help(), columns)


@pytest.mark.parametrize("name", commandlines.SCRIPTS)
def test_each_help_has_the_same_parts_in_the_same_order(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = commandlines.parser(name).format_help()
    helps.check_form(text, f"scripts/{name} [OPTION]…")
    assert {0, 1, 2} <= helps.exits_in(text) or name == "run-qemu"


@pytest.mark.parametrize("name", commandlines.SCRIPTS)
def test_what_the_examples_say_can_be_parsed(name):
    helps.check_examples(commandlines.parser(name), f"scripts/{name}")


@pytest.mark.parametrize("name", commandlines.SCRIPTS)
def test_the_command_prints_that_help_and_one_line_for_wrong_usage(name):
    shown = run(name, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: scripts/{name} [OPTION]…")
    helps.check_width(shown.stdout, 60)
    assert "\033" not in shown.stdout
    wrong = run(name, "--no-such")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "--no-such" in wrong.stderr
    assert wrong.stderr.endswith(f"; try 'scripts/{name} --help'\n")


def test_what_pytest_takes_is_nothing_against_the_suite():
    for words in ([], ["-k", "a and not b", "tests/app"], ["--durations=25", "-n", "0", "--pdb"], ["--quick", "-x"]):
        assert suite.problem(words) is None
    assert "--no-such" in suite.problem(["--quick", "--no-such"])
    assert "-k" in suite.problem(["-k"])
