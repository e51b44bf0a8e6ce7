# SPDX-License-Identifier: MIT
"""Completion in the shells themselves, as far as they are on this machine."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

import composeapps
from composeapps.cli import completion, main
from support import apps, stores
from support.images import multi_platform

LIB = Path(composeapps.__file__).parents[1]


@pytest.fixture
def place(tmp_path, capsys):
    """A directory with the command, its three scripts and a store with app "blog"; a file and a directory."""
    image = multi_platform("x")
    pinned = f"hub.demo.test/f/x@{image.digest}"
    compose = apps.compose_text({"web": pinned})
    for name in ("blog", "blue"):
        stores.write(tmp_path / "store", f"hub.demo.test/f/{name}", apps.make_app(compose, {"of": name}, [image]),
                     {pinned: image}, compose=compose)
    (tmp_path / "config.toml").write_text(f'[pacman]\nreset_apps_root = "{tmp_path}/store"\n')
    program = tmp_path / "bin" / "composeapps"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={LIB} exec {sys.executable} -m composeapps --config '
                       f'{tmp_path}/config.toml "$@"\n')
    program.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        assert main.main(["completion", shell]) == 0
        (tmp_path / f"script.{shell}").write_text(capsys.readouterr().out)
    (tmp_path / "answers.json").write_text("")
    (tmp_path / "somewhere").mkdir()
    return tmp_path


def _environment(place):
    return {"PATH": f"{place}/bin:/usr/bin:/bin", "HOME": str(place), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


CASES = [
    ("composeapps ", {"ls", "pull", "publish", "completion"}, {"--json"}),
    ("composeapps pu", {"pull", "publish"}, {"prune"}),
    ("composeapps --store somewhere pru", {"prune"}, set()),
    ("composeapps pull --par", {"--parallel"}, {"--limit"}),
    ("composeapps show bl", {"blog", "blue"}, set()),
    ("composeapps show blo", {"blog"}, {"blue"}),
    ("composeapps completion f", {"fish"}, {"bash"}),
    ("composeapps publish --digest-file ans", {"answers.json"}, set()),
    ("composeapps ls --store some", {"somewhere"}, {"answers.json"}),
    ("composeapps pull --limit ", set(), {"answers.json", "--json"}),
]


@pytest.mark.parametrize(("line", "wanted", "unwanted"), CASES)
def test_bash(place, line, wanted, unwanted):
    words = line.split(" ")
    script = ('compopt() { :; }; source script.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _composeapps; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script, "bash", *words], cwd=place, env=_environment(place),
                          capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert done.stderr == "" and wanted <= found and not unwanted & found


@pytest.mark.parametrize(("words", "wanted"), [
    (["composeapps", "ls", "--store", "=", "some"], "somewhere"),
    (["composeapps", "ls", "--store", "="], "somewhere"),
    (["composeapps", "--store", "=", "x", "pru"], "prune"),
])
def test_bash_splits_at_the_equals_sign(place, words, wanted):
    test_bash(place, " ".join(words), {wanted}, set())


@pytest.mark.parametrize(("line", "wanted", "unwanted"), CASES)
def test_fish(place, line, wanted, unwanted):
    done = subprocess.run(["fish", "--no-config", "-c", "source script.fish; complete -C $argv[1]", line], cwd=place,
                          env=_environment(place), capture_output=True, text=True, check=True)
    found = {each.split("\t")[0].rstrip("/") for each in done.stdout.splitlines()}
    assert done.stderr == "" and wanted <= found and not unwanted & found


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, place, *argv):
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(place)
            os.execvpe(argv[0], argv, _environment(place))
        self._text = ""

    def ask(self, text, pattern):
        """Type a text; return when the pattern was printed since."""
        self._text = ""
        os.write(self._fd, text.encode())
        deadline = time.monotonic() + 30
        while not re.search(pattern, self._text):
            assert select.select([self._fd], [], [], deadline - time.monotonic())[0], self._text
            self._text += os.read(self._fd, 4096).decode(errors="replace")

    def close(self):
        os.close(self._fd)
        os.waitpid(self._pid, 0)


@pytest.fixture
def terminal(place):
    """Start a shell that ends with the test."""
    started = []

    def start(*argv):
        started.append(Terminal(place, *argv))
        return started[-1]

    yield start
    for each in started:
        each.close()


def _type(shell):
    """Type a command line with the key that completes, and see what the shell makes of it."""
    shell.ask("composeapps roll\t", "composeapps rollback ")
    shell.ask("\x15composeapps show blo\t", "show blog")
    shell.ask("\x15composeapps pull --para\t", "--parallel")
    shell.ask("\x15composeapps publish --digest-file answ\t", "answers.json")


def test_bash_on_a_terminal(terminal):
    shell = terminal("bash", "--norc", "--noprofile", "-i")
    shell.ask("PS1='rea''dy '; source script.bash\n", "ready ")
    _type(shell)


def test_zsh_on_a_terminal(terminal, place):
    (place / "functions").mkdir()
    (place / "script.zsh").rename(place / "functions" / "_composeapps")
    shell = terminal("zsh", "-f", "-i")
    shell.ask("PS1='rea''dy '; fpath=($HOME/functions $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy\n",
              "(?s)ready\r\n.*ready ")
    _type(shell)


def test_every_option_of_every_command_is_there(place):
    options, commands = completion._described()
    assert {command.name for command in commands} == set(main.COMMANDS)
    for shell in ("bash", "zsh", "fish"):
        text = (place / f"script.{shell}").read_text()
        for option in [*options, *(each for command in commands for each in command.options)]:
            for flag in option.flags:
                assert (flag if shell != "fish" else f"-{'l' if flag[1] == '-' else 's'} {flag.lstrip('-')}") in text
