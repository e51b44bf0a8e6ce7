# SPDX-License-Identifier: MIT
"""dockerd from Debian's source: the patches fit it, it is compiled once, and its own tests pass with them."""

import difflib
import hashlib
import json
import os
import subprocess
import sys

import pytest

import hostsetup
from fastlane.errors import BuildError
from moby import build, cache, series, source

# The first of these makes the compiler's root, which takes minutes on a new machine.
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(2400)]


def test_the_series_fits_debians_source_without_fuzz_or_offset(prepared, tmp_path):
    source.copy(prepared, tmp_path / "engine", series.of_the_layer(series.DEBIAN_FORM))
    assert not [path for path in (tmp_path / "engine").rglob("*") if path.suffix in (".rej", ".orig")]


def test_dockerd_is_built_with_the_series_and_only_once():
    first = build.build(series.of_the_layer())
    again = build.build(series.of_the_layer())
    assert again.directory == first.directory and not again.fresh
    description = json.loads((first.directory / "build.json").read_text())
    assert [entry["name"] for entry in description["patches"]] == series.names()
    binary = first.directory / "dockerd"
    assert description["sha256"] == hashlib.sha256(binary.read_bytes()).hexdigest()
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    assert description["version"].rpartition("-")[0] in said


@pytest.fixture
def broken(prepared, tmp_path):
    """A patch that fits and does not compile."""
    before = (prepared.engine / "layer/filestore.go").read_text()
    after = before.replace("\n)\n", "\n)\n\nvar broken int = nosuchthing\n", 1)
    path = tmp_path / "0001-bad.patch"
    path.write_text("".join(difflib.unified_diff(
        before.splitlines(True), after.splitlines(True), "a/layer/filestore.go", "b/layer/filestore.go")))
    return path


def test_a_patch_that_does_not_compile_is_one_sentence_and_leaves_nothing_as_a_killed_build_does(broken):
    before = sorted(cache.place().glob("dockerd-*/"))
    with subprocess.Popen([sys.executable, hostsetup.TOP / "scripts/build-dockerd", "--patch", broken],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        said = next(line for line in process.stderr if line.startswith("compiling dockerd"))
        process.kill()
    assert "with 1 patch" in said
    # Twice: what a killed or failed build left must not be taken for a built one.
    for _ in range(2):
        with pytest.raises(BuildError, match=r"dockerd does not compile: .*filestore\.go:\d+.*nosuchthing"):
            build.build(series.of_files([broken]))
    assert sorted(cache.place().glob("dockerd-*/")) == before


def test_the_unit_tests_of_what_is_patched_pass():
    done = subprocess.run([sys.executable, hostsetup.TOP / "scripts/build-dockerd", "--test", "--json", "--quiet"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = {entry["package"]: entry["result"] for entry in json.loads(done.stdout)["tests"]}
    assert set(results.values()) == {"ok"}
    assert {"layer", "image", "image/tarexport", "pkg/ioutils", "reference"} <= set(results)


def test_a_patch_that_is_not_there_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, hostsetup.TOP / "scripts/build-dockerd", "--quiet", "--patch", "none.patch"],
        cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"build-dockerd: {os.path.realpath(tmp_path)}/none.patch is not there")
    assert len(done.stderr.splitlines()) == 1
