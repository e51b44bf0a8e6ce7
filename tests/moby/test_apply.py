# SPDX-License-Identifier: MIT
"""A patch is applied where it says, or not at all."""

import pytest

from fastlane.errors import BuildError
from moby import source

LINES = [f"line {number}" for number in range(1, 21)]


@pytest.fixture
def tree(tmp_path):
    """A source with one file of twenty lines."""
    directory = tmp_path / "tree" / "layer"
    directory.mkdir(parents=True)
    (directory / "a.go").write_text("".join(f"{line}\n" for line in LINES))
    return directory.parent


def _patch(directory, at, before="line 9", after="line 11"):
    path = directory / "0001-change.patch"
    path.write_text("From: nobody\n\n--- a/layer/a.go\n+++ b/layer/a.go\n"
                    f"@@ -{at},3 +{at},3 @@ func\n {before}\n-line 10\n+line ten\n {after}\n")
    return path


def test_a_patch_that_fits_is_applied(tree, tmp_path):
    source.apply(_patch(tmp_path, 9), tree, "moby 1")
    assert (tree / "layer/a.go").read_text().splitlines()[9] == "line ten"
    assert sorted(path.name for path in (tree / "layer").iterdir()) == ["a.go"]


def test_a_patch_that_fits_elsewhere_is_refused(tree, tmp_path):
    with pytest.raises(BuildError, match=r"0001-change\.patch does not fit moby 1: Hunk #1 .*offset"):
        source.apply(_patch(tmp_path, 7), tree, "moby 1")


def test_a_patch_that_fits_nearly_is_refused(tree, tmp_path):
    with pytest.raises(BuildError, match=r"0001-change\.patch does not fit moby 1: Hunk #1 FAILED"):
        source.apply(_patch(tmp_path, 9, after="line twelve"), tree, "moby 1")


def test_a_patch_of_a_file_that_is_not_there_is_refused(tree, tmp_path):
    (tree / "layer/a.go").unlink()
    with pytest.raises(BuildError, match=r"0001-change\.patch does not fit moby 1: "):
        source.apply(_patch(tmp_path, 9), tree, "moby 1")
