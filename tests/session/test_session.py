# SPDX-License-Identifier: MIT
"""How a run of the suite is put together: groups for the workers, the quick part, the table of files."""

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

import suite
from support import session

TOP = Path(__file__).resolve().parents[2]
_TESTS = {
    "conftest.py": 'pytest_plugins = ["support.session"]\n',
    "crash/test_a.py": "import pytest\n@pytest.mark.slow\ndef test_a(): pass\n",
    "crash/test_b.py": "def test_b(): pass\n",
    "app/test_c.py": "import pytest\n@pytest.mark.qemu\ndef test_c(): pass\ndef test_d(): assert 1 == 2\n",
}


@pytest.fixture
def run(tmp_path):
    """Run pytest over a suite of four tests of which one fails; returns its output."""
    for name, text in _TESTS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def pytest_(*words):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", tmp_path,
             "--import-mode=importlib", "-o", "markers=slow\nqemu", *words, tmp_path],
            cwd=tmp_path, capture_output=True, text=True,
            env={"PYTHONPATH": TOP / "tests", "PYTHONDONTWRITEBYTECODE": "1"}, check=False)
        return done.stdout
    return pytest_


@pytest.mark.parametrize("words", [["-n", "2"], ["-p", "no:xdist"]], ids=["workers", "alone"])
def test_the_quick_part_leaves_out_machines_and_what_is_slow_and_a_failure_reads_as_ever(run, words):
    said = run("--durations=5", "--quick", *words)
    assert "FAILED app/test_c.py::test_d - assert 1 == 2" in said and "1 failed, 1 passed" in said
    assert "slowest 5 files" in said and "1 tests  app/test_c.py" in said and "in all files" in said


def test_a_room_that_shares_what_is_costly_stays_in_one_worker():
    for room in session.TOGETHER:
        assert (TOP / "tests" / room).is_dir()
        assert session.group(f"tests/{room}/test_a.py::test_b[x/y]") == room
    assert session.group("tests/app/test_a.py::test_b[x::y]") == "tests/app/test_a.py"
    assert all((TOP / "tests" / name).exists() for name in session.FIRST)


@pytest.mark.parametrize(("arguments", "several"), [
    ([], True), (["--quick", "-x"], True), (["tests/app", "-k", "no"], True),
    (["-s"], False), (["-n0"], False), (["-n", "3"], False), (["--pdb"], False), (["-p", "no:xdist"], False)])
def test_the_command_adds_workers_where_nothing_is_against_them(arguments, several):
    assert suite.workers(arguments)[:1] == (["-n"] if several else [])


def test_the_command_has_itself_checked():
    loader = SourceFileLoader("scripts_test", str(TOP / "scripts" / "test"))
    command = module_from_spec(spec_from_loader("scripts_test", loader))
    loader.exec_module(command)
    assert str(TOP / "scripts" / "test") in command.commands()


def test_workers_name_tests_alike():
    for value, name in ((b"\x1f\x8b\x08\x00s\xa7", "data"), (b"a: b\n", "data"), (b"plain", None), ("\x1f", None)):
        assert session.pytest_make_parametrize_id(None, value, "data") == name
