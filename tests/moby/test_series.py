# SPDX-License-Identifier: MIT
"""The layer's patches for moby as files: one list, two forms that say the same, each with what upstream asks for."""

import re

import pytest

from fastlane.errors import BuildError
from moby import series

FORMS = (series.DEBIAN_FORM, series.YOCTO_FORM)
_STATUS = re.compile(r"^Upstream-Status: (Pending|Submitted \[.+\]|Backport \[.+\]|Inappropriate \[.+\]|Denied)",
                     re.MULTILINE)
_FILE = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)


def _old_path(path):
    """Return where moby up to 28 has a file of moby 29 (moby's releases: the daemon's packages went to daemon/)."""
    path = path.replace("daemon/internal/refstore/", "reference/")
    return re.sub(r"^daemon/internal/(layer|image|distribution)/", r"\1/", path)


def test_the_list_names_every_patch_of_both_forms():
    listed = series.names()
    assert listed == sorted(listed) and listed
    for form in FORMS:
        assert sorted(path.name for path in (series.RECIPE_DIRECTORY / form).iterdir()) == listed


@pytest.mark.parametrize("form", FORMS)
def test_each_patch_says_why_who_and_what_becomes_of_it_upstream(form):
    for path in series.of_the_layer(form).patches:
        text = path.read_text()
        message = text.partition("\n---\n")[0]
        assert re.search(r"^Subject: \[PATCH.*\] \S", message, re.MULTILINE), path
        assert _STATUS.search(message), f"{path} has no Upstream-Status that OpenEmbedded knows"
        assert re.search(r"^Signed-off-by: .+ <.+@.+>$", message, re.MULTILINE), path
        body = message.partition("\n\n")[2].partition("Upstream-Status:")[0]
        assert len(body.split()) > 20, f"{path} gives no rationale"


def test_both_forms_change_the_same_files():
    for old, new in zip(*(series.of_the_layer(form).patches for form in FORMS), strict=True):
        files = [sorted(_FILE.findall(path.read_text())) for path in (old, new)]
        assert files[0] == sorted(map(_old_path, files[1])), old.name


def test_a_patch_that_is_listed_and_not_there_is_named(tmp_path):
    with pytest.raises(BuildError, match=r"0001-none\.patch is not there"):
        series.of_files([tmp_path / "0001-none.patch"])


def test_a_list_without_the_variable_is_named(tmp_path):
    listing = tmp_path / "docker-moby-patches.inc"
    listing.write_text("# nothing\n")
    with pytest.raises(BuildError, match="has no COMPOSEAPPS_MOBY_PATCHES"):
        series.names(listing)


def test_names_and_order_and_contents_make_the_hash(tmp_path):
    one, other = tmp_path / "0001-a.patch", tmp_path / "0002-b.patch"
    one.write_text("a")
    other.write_text("b")
    both = series.of_files([one, other]).sha256
    assert both != series.of_files([other, one]).sha256
    assert both != series.of_files([one]).sha256
    other.write_text("c")
    assert both != series.of_files([one, other]).sha256


def test_the_packages_that_a_patch_touches_are_tested(tmp_path):
    patch = tmp_path / "0001-a.patch"
    patch.write_text("--- a/layer/filestore.go\n+++ b/layer/filestore.go\n@@ -1 +1 @@\n-a\n+b\n"
                     "--- /dev/null\n+++ b/pkg/new/new.go\n@@ -0,0 +1 @@\n+a\n--- a/README.md\n+++ b/README.md\n")
    assert series.of_files([patch]).packages() == ["./layer", "./pkg/new"]
