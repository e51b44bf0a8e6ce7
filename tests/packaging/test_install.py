# SPDX-License-Identifier: MIT
"""pip and pipx make the command of a checkout, and leave the checkout, the layer above all, as it was."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from composeapps import __version__, sources

TOP = Path(__file__).resolve().parents[2]
LIB = TOP / "meta-composeapps" / "lib"


def everything(directory):
    """Return {path: content} of all files below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout, as much of it as is built from, and the directory that pip installs into."""
    place = tmp_path_factory.mktemp("packaging")
    top = place / "checkout"
    shutil.copytree(LIB, top / "meta-composeapps" / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, top / name)
    before = everything(top)
    # What builds is of this virtual environment, so no network is asked.
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps",
         "--no-build-isolation", "--no-compile", "--target", place / "installed", top],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    return top, before, place / "installed"


def test_an_installation_leaves_nothing_in_the_checkout(checkout):
    top, before, _installed = checkout
    assert everything(top) == before


def test_all_of_the_package_is_installed_and_the_command_runs(checkout):
    _top, _before, installed = checkout
    there = {name for name in everything(installed) if name.startswith("composeapps/")}
    assert there == set(sources.files())
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    for command in ([sys.executable, installed / "bin" / "composeapps"], [sys.executable, "-m", "composeapps"]):
        done = subprocess.run([*command, "version"], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and f"composeapps {__version__}" in done.stdout, done.stderr


def test_the_module_is_the_command_with_its_exit_status():
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(LIB), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", "composeapps", "show", "nothing"], env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stderr.startswith("composeapps: ") and "Traceback" not in done.stderr
