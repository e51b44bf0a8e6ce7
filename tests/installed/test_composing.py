# SPDX-License-Identifier: MIT
"""docker compose is run in an environment of its own, one at a time, and not for ever; stand-ins for it show that."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from composeapps.cli.config import Config
from composeapps.errors import EngineError
from composeapps.installed import composing


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a script in compose's place with the words that it is given."""
    def start(script, *words, limit=30):
        program = tmp_path / "compose"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        config = Config(compose_command=(str(program),), docker_host="unix:///sock")
        composing.run(config, ["--project-name", "p"], words or ("up",), tmp_path, tmp_path / "lock", limit, "app web")

    return start


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _gone(pid):
    deadline = time.monotonic() + 20
    while _alive(pid):
        assert time.monotonic() < deadline, "it lives"
        time.sleep(0.01)


def test_nothing_of_the_callers_environment_reaches_it(run, tmp_path, monkeypatch):
    for name in ("COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CONFIG",
                 "TAG", "http_proxy"):
        monkeypatch.setenv(name, "of the caller")
    monkeypatch.setenv("HOME", "/elsewhere")
    run("env > environment; echo \"$@\" > words", "up", "--detach")
    found = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert found.keys() - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "HOME", "LANG", "DOCKER_HOST"}
    assert found["HOME"] == "/root" and found["DOCKER_HOST"] == "unix:///sock"
    assert (tmp_path / "words").read_text() == "--project-name p up --detach\n"
    assert not composing.was_cut_off(tmp_path / "lock")


def test_its_last_words_are_told(run):
    with pytest.raises(EngineError, match="app web: docker compose pull failed: three; four; five$"):
        run("printf 'one\\ntwo\\nthree\\n\\n  four\\nfive'; exit 3", "pull")
    with pytest.raises(EngineError, match="failed: exit status 4"):
        run("exit 4")
    with pytest.raises(EngineError) as caught:
        run("head -c 3000000 /dev/zero | tr '\\0' x; exit 1")
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("script", ["trap '' TERM; ", ""])
def test_one_that_takes_too_long_is_ended_with_all_that_it_started(run, tmp_path, monkeypatch, script):
    monkeypatch.setattr(composing, "_PATIENCE", 0.3)
    waiting = "sleep 1000 & echo $! > child; echo pulling something; while :; do wait; done"
    with pytest.raises(EngineError, match=r"up was ended, .* longer than 1 s \(pulling something\).*compose_timeout"):
        run(script + waiting, limit=1)
    _gone(int((tmp_path / "child").read_text()))
    assert composing.was_cut_off(tmp_path / "lock"), "what it left in dockerd is looked for"
    run("exit 0")
    assert not composing.was_cut_off(tmp_path / "lock")


def test_an_interrupted_agent_leaves_none(run, tmp_path, monkeypatch):
    monkeypatch.setattr(composing, "_PATIENCE", 0.3)

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(f"sleep 1000 & echo $! > child; sleep 0.5; kill -USR1 {os.getpid()}; wait")
    finally:
        signal.signal(signal.SIGUSR1, before)
    _gone(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize("leader_lives", [True, False])
def test_one_that_outlived_its_agent_is_ended_before_the_next_one(run, tmp_path, leader_lives):
    lock = tmp_path / "lock"
    script = f"echo $$ > lock; exec 9<lock; flock 9; sleep 1000 & echo $! > child; {'wait' if leader_lives else 'exit'}"
    left = subprocess.Popen(["/bin/sh", "-c", script], cwd=tmp_path, start_new_session=True)
    if not leader_lives:
        left.wait()
    deadline = time.monotonic() + 20
    while not ((tmp_path / "child").exists() and (tmp_path / "child").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run("exit 0")
    _gone(int((tmp_path / "child").read_text()))
    left.wait()
    assert lock.stat().st_size == 0
