# SPDX-License-Identifier: MIT
"""Help has one form for all commands of the agent, fits the terminal, and says what is so."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import composeapps
from composeapps.cli import helptext, main
from support import helps

LIB = Path(composeapps.__file__).parents[1]
COMMANDS = ["", *main.COMMANDS, *(f"{name} {each}" for name in ("target", "bundle")
                                 for each in main.build_parser(name).subcommands()[name].subcommands())]


def parser_of(name):
    found = main.build_parser(name.split()[0] if name else None)
    for word in name.split():
        found = found.subcommands()[word]
    return found


def run(*words, **environment):
    return subprocess.run([sys.executable, "-B", "-m", "composeapps", *map(str, words)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False,
                          env={**os.environ, "PYTHONPATH": str(LIB), **environment})


@pytest.mark.parametrize("columns", [200, 80, 60, 40])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_wider_than_the_terminal(name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    helps.check_width(parser_of(name).format_help(), columns)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_the_same_parts_in_the_same_order(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    usage = f"composeapps {name} [OPTION]…" if name else "composeapps [OPTION]… COMMAND"
    helps.check_form(parser_of(name).format_help(), usage)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_examples_say_can_be_parsed(name, capsys):
    helps.check_examples(parser_of(name), "composeapps", main.build_parser().parse_args)


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


@pytest.mark.parametrize("words", [("list",), ("list", "repo", "--no-such"), ("create", "repo")])
def test_wrong_usage_of_a_command_of_a_command_leads_to_its_own_help(words):
    done = run("target", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.endswith(f"; try 'composeapps target {words[0]} --help'\n")


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
    assert done.returncode in helps.exits_in(parser_of(words[0]).format_help()), done.stderr


def test_every_error_has_a_status_that_is_explained():
    from composeapps.cli.statuses import STATUSES
    from composeapps.dockerstore import liveness
    from composeapps.errors import ComposeAppsError

    assert liveness.BusyError.exit_code in STATUSES
    classes = [ComposeAppsError]
    for each in classes:
        classes += each.__subclasses__()
    assert {each.exit_code for each in classes if each.__module__.startswith("composeapps.")} <= set(STATUSES)
    assert helps.exits_in(parser_of("").format_help()) == set(STATUSES)


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


@pytest.mark.parametrize("words", [("pull", "--help"), ("completion", "fish")])
def test_a_terminal_that_lacks_characters_gets_others(words):
    done = run(*words, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.isascii()
    assert words[1] != "--help" or "[OPTION]... REF..." in done.stdout


def test_nothing_of_the_help_is_loaded_unless_it_is_asked_for():
    code = "import sys; from composeapps.cli.main import main; main(['version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, {str(LIB)!r}); {code}"],
                          capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "composeapps.cli.parser" in loaded
    assert not loaded & {"shutil", "textwrap", "composeapps.cli.helptext", "composeapps.cli.statuses",
                         "composeapps.cli.environment"}
