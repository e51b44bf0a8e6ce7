# SPDX-License-Identifier: MIT
"""Running oeqa cases on a target, here this machine's own shell; the layer's cases run in tests/device."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from oeqatarget import CASES, OeqaError, run_cases

TOP = Path(__file__).resolve().parents[2]
STANDIN = TOP / "tests" / "support" / "oeqa_standin"

CASES_TEXT = '''
from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

class FirstTest(OERuntimeTestCase):
    @OETestDepends(["sample_cases.FirstTest.test_z"])
    def test_a_after_z(self):
        self.assertEqual(self.target.run("read -r flag < flag; echo $flag")[1].strip(), "set")
    def test_z(self):
        self.assertEqual(self.target.run("echo set > flag")[0], 0)
    def test_fails(self):
        self.assertEqual(self.target.run("exit 3")[0], 0, "the command failed")
    @OETestDepends(["sample_cases.FirstTest.test_fails"])
    def test_needs_what_failed(self):
        pass

class SecondTest(OERuntimeTestCase):
    @OEHasPackage(["absent"])
    def test_of_a_package(self):
        pass
'''


class LocalTarget:
    """Runs the cases' commands in a directory of this machine, with no program but the shell's own."""

    def __init__(self, directory):
        self.directory = directory

    def run(self, cmd, timeout=None):
        done = subprocess.run(["/bin/sh", "-c", cmd], cwd=self.directory, capture_output=True, text=True, check=False,
                              timeout=timeout, env={"PATH": str(self.directory)})
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def cases(tmp_path):
    directory = tmp_path / "cases"
    directory.mkdir()
    (directory / "sample_cases.py").write_text(CASES_TEXT)
    return directory


def test_each_case_has_an_outcome(cases, tmp_path):
    results = run_cases(LocalTarget(tmp_path), {"present"}, STANDIN, cases=cases, modules=["sample_cases"])
    assert {result.case.removeprefix("sample_cases."): result.outcome for result in results} == {
        "FirstTest.test_a_after_z": "passed", "FirstTest.test_z": "passed", "FirstTest.test_fails": "failed",
        "FirstTest.test_needs_what_failed": "skipped", "SecondTest.test_of_a_package": "skipped"}
    failed, = (result for result in results if result.outcome == "failed")
    assert "the command failed" in failed.text


def test_one_class_runs_alone(cases, tmp_path):
    results = run_cases(LocalTarget(tmp_path), {"absent"}, STANDIN, cases=cases, modules=["sample_cases.SecondTest"])
    assert [(result.case, result.outcome) for result in results] == [
        ("sample_cases.SecondTest.test_of_a_package", "passed")]


def test_a_module_that_does_not_exist_is_an_error(cases, tmp_path):
    with pytest.raises(OeqaError, match="no oeqa case other_cases"):
        run_cases(LocalTarget(tmp_path), set(), STANDIN, cases=cases, modules=["sample_cases", "other_cases"])


def test_a_directory_without_oeqa_is_one_sentence(cases, tmp_path):
    with pytest.raises(OeqaError, match="holds no oeqa: name the directory meta/lib"):
        run_cases(LocalTarget(tmp_path), set(), tmp_path, cases=cases, modules=["sample_cases"])


def test_nothing_of_oeqa_stays_imported(cases, tmp_path):
    run_cases(LocalTarget(tmp_path), set(), STANDIN, cases=cases, modules=["sample_cases"])
    assert not [name for name in sys.modules if name.split(".")[0] in ("oeqa", "sample_cases")]


def test_a_device_without_the_agent_fails(tmp_path):
    results = run_cases(LocalTarget(tmp_path), {"composeapps"}, STANDIN)
    assert results and "passed" not in {result.outcome for result in results}


def test_an_image_without_the_agent_is_left_alone(tmp_path):
    results = run_cases(LocalTarget(tmp_path), {"busybox"}, STANDIN)
    assert results and {result.outcome for result in results} == {"skipped"}


def test_testimage_finds_the_cases():
    # TEST_SUITES names modules in lib/oeqa/runtime/cases of any layer; oeqa is no regular package, so that
    # several layers may have a part of it.
    fragment = yaml.safe_load((TOP / "kas" / "testimage.yml").read_text())["local_conf_header"]["testimage"]
    suites = next(line for line in fragment.splitlines() if line.startswith("TEST_SUITES")).split('"')[1].split()
    ours = {path.stem for path in CASES.glob("*.py")}
    assert ours and ours < set(suites)
    assert not list((CASES.parents[1]).rglob("__init__.py"))
    # A module of the same name as one that is imported already cannot be loaded by unittest.
    importable = {path.name for path in (TOP / "meta-composeapps" / "lib").iterdir()}
    assert not ours & (importable | set(sys.stdlib_module_names))
