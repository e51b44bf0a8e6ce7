# SPDX-License-Identifier: MIT
"""What check-layer makes of BitBake's output. The logs are excerpts of real runs."""

from pathlib import Path

import pytest

from layercheck.bitbakelog import Ownership, read
from layercheck.builds import judge_dry_run, judge_parse

TOP = Path(__file__).resolve().parents[2]
LAYER = TOP / "meta-composeapps"
# As BitBake writes the path of a layer: as bblayers.conf does, from the build directory.
WRITTEN = f"{TOP}/build/layercheck/build/qemux86-64/../../../../meta-composeapps"
ELSEWHERE = f"{TOP}/build/layercheck/build/qemux86-64/../../layers"

PARSED = f"""\
Loading cache...done.
Loaded 0 entries from dependency cache.
Parsing recipes...NOTE: {ELSEWHERE}/meta-virtualization/recipes-extended/images/container-base-multiarch.bb: OCI \
multi-arch: building container-base for platforms: aarch64 x86_64
done.
Parsing of 3160 .bb files complete (0 cached, 3160 parsed). 5452 targets, 138 skipped, 0 masked, 0 errors.
"""
PLANNED = f"""\
NOTE: Resolving any missing task queue dependencies
WARNING: Disabling uninative as unable to fetch uninative tarball: Network access disabled through BB_NO_NETWORK
WARNING: To build your own uninative loader, please bitbake uninative-tarball and set UNINATIVE_TARBALL appropriately.
Initialising tasks...Sstate summary: Wanted 3018 Local 0 Mirrors 0 Missed 3018 Current 0 (0% match, 0% complete)
done.
NOTE: Executing Tasks
NOTE: Running task 1 of 5599 ({ELSEWHERE}/openembedded-core/meta/recipes-devtools/quilt/quilt-native_0.69.bb:do_fetch)
NOTE: Running task 5598 of 5599 ({WRITTEN}/recipes-images/images/composeapps-image.bb:do_populate_lic_deploy)
NOTE: Tasks Summary: Attempted 5599 tasks of which 0 didn't need to be rerun and all succeeded.

Summary: There were 2 WARNING messages.
"""
OUR_WARNING = f"""\
Loaded 12 entries from dependency cache.
Parsing recipes...WARNING: {WRITTEN}/recipes-composeapps/packagegroups/packagegroup-composeapps.bb: odd
done.
Parsing of 8 .bb files complete (7 cached, 1 parsed). 12 targets, 0 skipped, 3171 masked, 0 errors.
WARNING: No bb files in default matched BBFILE_PATTERN_core '^{ELSEWHERE}/openembedded-core/meta/'
"""
NO_SUCH_CLASS = f"""\
Parsing recipes...ERROR: ParseError at {WRITTEN}/recipes-images/images/broken-image.bb:3: Could not inherit file \
classes/nonesuch.bbclass
ERROR: Parsing halted due to errors, see error messages above

Summary: There were 2 ERROR messages, returning a non-zero exit code.
"""
DANGLING_APPEND = f"""\
Parsing recipes...done.
ERROR: No recipes in default available for:
  {WRITTEN}/recipes-core/systemd/systemd_%.bbappend
Parsing of 8 .bb files complete (0 cached, 8 parsed). 12 targets, 0 skipped, 3169 masked, 0 errors.

Summary: There was 1 ERROR message, returning a non-zero exit code.
"""
NO_PROVIDER = """\
Parsing of 8 .bb files complete (0 cached, 8 parsed). 12 targets, 0 skipped, 3171 masked, 0 errors.
NOTE: Resolving any missing task queue dependencies
ERROR: Nothing PROVIDES 'quilt-native'
ERROR: Required build target 'composeapps-image' has no buildable providers.
Missing or unbuildable dependency chain was: ['composeapps-image', 'quilt-native']

Summary: There were 2 ERROR messages, returning a non-zero exit code.
"""


@pytest.fixture(scope="module")
def ownership():
    return Ownership(LAYER)


def test_a_good_run_passes_both_checks(ownership):
    reading = read(PARSED + PLANNED)
    parsed = judge_parse(reading, "qemux86-64", ownership)
    assert parsed.status == "passed"
    assert parsed.counts == {"recipes": 3160, "skipped": 138, "errors": 0, "warnings of ours": 0, "other warnings": 0}
    planned = judge_dry_run(reading, "qemux86-64", ownership)
    assert (planned.status, planned.counts["tasks"]) == ("passed", 5599)


def test_a_warning_about_our_layer_fails_the_parse_and_others_only_count(ownership):
    result = judge_parse(read(OUR_WARNING), "qemux86-64", ownership)
    assert result.status == "failed"
    assert result.counts["warnings of ours"] == 1
    assert len(result.problems) == 1 and result.problems[0].endswith("packagegroup-composeapps.bb: odd")


def test_a_recipe_that_does_not_parse_is_shown(ownership):
    result = judge_parse(read(NO_SUCH_CLASS), "qemux86-64", ownership, status=1)
    assert result.status == "failed"
    assert "Could not inherit file classes/nonesuch.bbclass" in result.problems[0]


def test_an_error_that_bitbake_does_not_count_fails_the_parse(ownership):
    result = judge_parse(read(DANGLING_APPEND), "qemux86-64", ownership, status=1)
    assert (result.status, result.counts["errors"]) == ("failed", 1)
    assert "systemd_%.bbappend" in result.problems[0]


def test_what_fails_after_parsing_fails_the_dry_run_alone(ownership):
    reading = read(NO_PROVIDER)
    assert judge_parse(reading, "qemux86-64", ownership, status=1).status == "passed"
    result = judge_dry_run(reading, "qemux86-64", ownership, status=1)
    assert result.status == "failed"
    # The chain of dependencies goes with the error before it.
    assert "['composeapps-image', 'quilt-native']" in result.problems[1]


@pytest.mark.parametrize("log", [PARSED, PARSED + PLANNED.split("NOTE: Tasks Summary")[0]])
def test_a_run_that_broke_off_does_not_pass(ownership, log):
    assert judge_dry_run(read(log), "qemux86-64", ownership, status=0).status == "failed"


@pytest.mark.parametrize("message", [
    f"{WRITTEN}/classes-recipe/composeapps-image.bbclass:3: odd",
    "Variable COMPOSEAPPS_STORE contains a tab",
    "OCI_ENDPOINTS is set twice",
    "Nothing RPROVIDES 'composeapps-docker-config'",
    "composeapp-web: no images for linux/riscv64",
])
def test_ours(ownership, message):
    assert ownership.owns(message)


@pytest.mark.parametrize("message", [
    # The repository may be checked out in a directory called like the layer.
    "/home/a/meta-composeapps/build/layercheck/layers/openembedded-core/meta/recipes-core/glibc/glibc_2.43.bb: odd",
    f"{ELSEWHERE}/meta-virtualization/recipes-containers/docker/docker-moby_git.bb: odd",
    "docker-compose is provided twice",
])
def test_not_ours(ownership, message):
    assert not ownership.owns(message)
