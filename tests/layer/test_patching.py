# SPDX-License-Identifier: MIT
"""The check `patch` without BitBake: what its logs are taken to mean. The excerpts have the form of real ones."""

import pytest

from layercheck import bitbakelog, patching
from layercheck.results import Status
from moby import series

NAMES = ["0001-sync-the-layer.patch", "0002-commit-durably.patch"]
FUZZY = """\
NOTE: --- Patch fuzz start ---
patching file daemon/internal/layer/layer_store.go
Hunk #1 succeeded at 12 with fuzz 1.
--- Patch fuzz end ---
"""


@pytest.fixture(autouse=True)
def _two_patches(monkeypatch):
    monkeypatch.setattr(series, "names", lambda: NAMES)


def judge(said, status=0, output=""):
    return patching.judge(bitbakelog.read(output), said, status, "meta-composeapps")


def applying(name):
    return f"NOTE: Applying patch '{name}' (../sources/{name})\n"


def test_patches_that_fit_pass():
    result = judge("".join(map(applying, ["other.patch", *NAMES])))
    assert result.status == Status.PASSED and result.counts == {"patches": 2, "applied": 2}


def test_fuzz_fails_and_names_the_patch():
    result = judge(applying(NAMES[0]) + FUZZY + applying(NAMES[1]))
    assert result.status == Status.FAILED and result.problems == [f"{NAMES[0]} fits only with fuzz"]


def test_fuzz_of_another_layers_patch_is_not_ours():
    assert judge(applying("other.patch") + FUZZY + "".join(map(applying, NAMES))).status == Status.PASSED


def test_a_patch_that_the_append_left_out_fails():
    result = judge(applying(NAMES[0]))
    assert result.status == Status.FAILED and result.problems == [f"{NAMES[1]} was not applied"]


def test_a_patch_that_does_not_fit_fails_with_what_bitbake_says():
    error = f"ERROR: docker-moby-29 do_patch: Applying patch '{NAMES[0]}' on target directory 'import'\n"
    result = judge(applying(NAMES[0]), 1, error)
    assert result.status == Status.FAILED and NAMES[0] in result.problems[0]


def test_a_source_that_cannot_be_fetched_says_nothing_about_the_patches():
    error = ("ERROR: docker-moby-29 do_fetch: Fetcher failure: Fetch command git clone failed with exit code 128\n"
             "ERROR: docker-moby-29 do_fetch: Fetcher Error: FetchError('Unable to fetch URL from any source.', "
             "'git://github.com/moby/moby.git;nobranch=1;name=moby;protocol=https')\n")
    result = judge("", 1, error)
    assert result.status == Status.UNREACHED and "cannot be fetched" in result.summary
    assert result.problems == ["not reached: git://github.com/moby/moby.git"]
