# SPDX-License-Identifier: MIT
"""Help has one form for all commands of the agent, fits the terminal, and says what is so."""

import contextlib
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import composeapps
from composeapps.cli import helptext, main

LIB = Path(composeapps.__file__).parents[1]
COMMANDS = ["", *main.COMMANDS]


def parser_of(name):
    whole = main.build_parser(name or None)
    return whole._subparsers._group_actions[0].choices[name] if name else whole


def run(*words, **environment):
    return subprocess.run([sys.executable, "-B", "-m", "composeapps", *map(str, words)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False,
                          env={**os.environ, "PYTHONPATH": str(LIB), **environment})


def exits_in(text):
    section = re.search(r"^Exit status:\n(.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)[1]
    return {int(number) for number in re.findall(r"^  (\d+)\b", section, re.MULTILINE)}


@pytest.mark.parametrize("columns", [200, 80, 60, 40])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_wider_than_the_terminal(name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in parser_of(name).format_help().splitlines():
        # A path, an address or what stands in quotes is not broken.
        assert len(line) <= min(columns, 80) or len(helptext.shell_words(line.removesuffix(" \\"))) == 1, line


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_the_same_parts_in_the_same_order(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = parser_of(name).format_help().splitlines()
    usage = f"composeapps {name} [OPTION]…" if name else "composeapps [OPTION]… COMMAND"
    assert lines[0].startswith(f"Usage: {usage}")
    sentence = " ".join("\n".join(lines).split("\n\n")[1].split())
    assert sentence.endswith(".") and sentence[0].isupper()
    order = ("Examples", "Commands", "Arguments", "Options", "Common options", "Exit status", "Environment")
    headings = [line[:-1] for line in lines if line.endswith(":") and line[:-1] in order]
    assert headings == [heading for heading in order if heading in headings]
    assert {"Examples", "Common options", "Exit status"} <= set(headings)
    assert not re.search(r"</?[a-z]+>", "\n".join(lines)), "a help is no HTML"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_examples_exist(name):
    examples = parser_of(name).examples
    assert examples
    for command, _meaning in examples:
        words = shlex.split(re.split(r" [|>] ", command)[0])
        assert words[0] == "composeapps"
        with contextlib.suppress(helped := _Helped):
            whole = main.build_parser()
            whole.exit = lambda status=0, message=None, command=command: _end(status, message or command, helped)
            for each in whole._subparsers._group_actions[0].choices.values():
                each.exit = whole.exit
            whole.parse_args(words[1:])


class _Helped(Exception):
    """The example asks for help."""


def _end(status, message, helped):
    assert status == 0, message
    raise helped


def test_a_command_line_that_is_broken_can_be_pasted(tmp_path):
    command = """printf '%s.' a --option "two  words" 'and | more' --other=value last-of-them | cat"""
    shown = helptext.command_line(command, 20)
    assert len(shown) > 4
    assert max(len(line) for line in shown if not line.strip().startswith(("'", '"', "--option"))) <= 22
    outputs = [subprocess.run(["sh", "-c", text], capture_output=True, check=True).stdout
               for text in (command, "\n".join(shown))]
    assert outputs[0] == outputs[1] != b""


@pytest.mark.parametrize("words", [
    ("ls", "--no-such"), ("pull",), ("status", "web", "--no-such=1"), ("history", "-n", "x")])
def test_wrong_usage_leads_to_the_commands_own_help(words):
    done = run(*words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(f"; try 'composeapps {words[0]} --help'\n")


def test_wrong_usage_of_the_whole_leads_to_its_help():
    for words in ((), ("--no-such",), ("no-such",)):
        done = run(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.endswith("; try 'composeapps --help'\n")


@pytest.mark.parametrize("words", [
    ["ls"], ["show", "web"], ["check", "web"], ["check"], ["pull", "web"],
    ["pull", "127.0.0.1:1/f/web@sha256:" + "0" * 64, "--no-such"], ["install", "web"], ["install"], ["run", "web"],
    ["run", "--factory"], ["stop", "web"], ["ps"], ["ps", "web"], ["update"], ["update", "status", "web"],
    ["rollback", "web"], ["allow", "hub.demo.test/f/web@sha256:" + "0" * 64], ["prune"], ["rm", "web"],
    ["uninstall", "web"], ["status"], ["status", "web"], ["history"], ["fsck", "--data-root", "none"],
    ["convert", "none"], ["convert", "--list"], ["inspect", "127.0.0.1:1/f/web:v1"], ["inspect", "web"],
    ["publish", "none", "127.0.0.1:1/f/web"], ["completion", "bash"], ["version"]], ids=" ".join)
def test_what_a_command_ends_with_is_in_its_help(words, tmp_path):
    place = ["--store", tmp_path / "store", "--state-dir", tmp_path / "state", "--compose-root", tmp_path / "compose",
             "--docker-host", f"unix://{tmp_path}/none.sock"]
    done = run(words[0], *place, *words[1:])
    assert "Traceback" not in done.stderr
    assert done.returncode in exits_in(parser_of(words[0]).format_help()), done.stderr


def test_every_error_has_a_status_that_is_explained():
    from composeapps.cli.statuses import STATUSES
    from composeapps.dockerstore import liveness
    from composeapps.errors import ComposeAppsError

    assert liveness.BusyError.exit_code in STATUSES
    classes = [ComposeAppsError]
    for each in classes:
        classes += each.__subclasses__()
    assert {each.exit_code for each in classes if each.__module__.startswith("composeapps.")} <= set(STATUSES)
    assert exits_in(parser_of("").format_help()) == set(STATUSES)


@pytest.mark.parametrize(("environment", "marked"), [
    ({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_headings_stand_out_on_a_terminal_only(environment, marked):
    environment = {"TERM": "xterm", **environment}
    assert "\033" not in run("ls", "--help", **environment).stdout
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        process = subprocess.Popen([sys.executable, "-B", "-m", "composeapps", "ls", "--help"], stdout=theirs,
                                   env={**inherited, "PYTHONPATH": str(LIB), **environment})
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):
            while data := terminal.read(4096):
                shown += data
        assert process.wait() == 0
    assert (b"\033[1mExamples:" in shown) is marked and (b"\033" in shown) is marked


def test_nothing_of_the_help_is_loaded_unless_it_is_asked_for():
    code = "import sys; from composeapps.cli.main import main; main(['version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, {str(LIB)!r}); {code}"],
                          capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "composeapps.cli.parser" in loaded
    assert not loaded & {"shutil", "textwrap", "composeapps.cli.helptext", "composeapps.cli.statuses",
                         "composeapps.cli.environment"}
