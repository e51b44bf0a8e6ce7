# SPDX-License-Identifier: MIT
"""What check-layer makes of yocto-check-layer's output; excerpts of real runs."""

from layercheck.yocto import judge

TESTS = ("layerseries_compat", "parse", "patches_upstream_status", "readme", "security", "show_environment",
         "signatures", "world", "world_inherit_class")
START = """\
INFO: Detected layers:
INFO: meta-composeapps: LayerType.SOFTWARE, /src/meta-composeapps
INFO: Getting initial signatures ...
INFO: setUpClass (bsp.BSPCheckLayer)
INFO:  ... skipped "BSPCheckLayer: Layer meta-composeapps isn't BSP one."
"""
END = """\
INFO: Summary of results:
INFO:
INFO: meta-composeapps ... {}
"""
UNBUILDABLE = """\
INFO: Traceback (most recent call last):
  File "/src/openembedded-core/scripts/lib/checklayer/cases/common.py", line 101, in test_world
    get_signatures(self.td['builddir'], failsafe=False)
RuntimeError: Generating signatures failed. This might be due to some parse error.
Output:
Loaded 13 entries from dependency cache.
NOTE: Resolving any missing task queue dependencies
ERROR: Nothing PROVIDES 'rpm-native'
ERROR: Required build target 'composeapps' has no buildable providers.
Missing or unbuildable dependency chain was: ['composeapps', 'rpm-native']
"""
CHANGED = """\
INFO: Traceback (most recent call last):
AssertionError: Adding layer meta-composeapps changed signatures.
2 signatures changed, initial differences (first hash before, second after):
   docker-moby:do_install: 01ab -> 23cd
      bitbake-diffsigs --task docker-moby do_install --signature 01ab 23cd
"""


def output(verdict="PASS", leave_out=(), **failed):
    """Return the output of a run in which the tests ``failed`` failed with these texts."""
    lines = [START]
    for name in TESTS:
        if name not in leave_out:
            lines.append(f"INFO: test_{name} (common.CommonCheckLayer.test_{name})\n")
            lines.append(f"INFO:  ... ERROR\n{failed[name]}" if name in failed else "INFO:  ... ok\n")
    lines.append("INFO: setUpClass (distro.DistroCheckLayer)\n"
                 "INFO:  ... skipped \"DistroCheckLayer: Layer meta-composeapps isn't Distro one.\"\n")
    for name, text in failed.items():
        lines.append(f"INFO: {'=' * 70}\nINFO: ERROR: test_{name} (common.CommonCheckLayer.test_{name})\n{text}")
    return "".join(lines) + END.format(verdict)


def test_all_tests_passed():
    result = judge(output(), 0, "meta-composeapps")
    assert (result.status, result.problems) == ("passed", [])
    assert result.counts == {f"test_{name}": "ok" for name in TESTS}


def test_what_failed_is_named_with_what_bitbake_said():
    result = judge(output("FAIL", world=UNBUILDABLE), 2, "meta-composeapps")
    assert result.status == "failed"
    assert result.counts["test_world"] == "ERROR" and result.counts["test_signatures"] == "ok"
    assert len(result.problems) == 1
    assert result.problems[0].count("Nothing PROVIDES 'rpm-native'") == 1
    assert "Loaded 13 entries" not in result.problems[0]


def test_the_last_test_keeps_its_outcome():
    result = judge(output("FAIL", world_inherit_class=UNBUILDABLE), 2, "meta-composeapps")
    assert result.counts["test_world_inherit_class"] == "ERROR"


def test_a_changed_signature_is_shown():
    result = judge(output("FAIL", signatures=CHANGED), 2, "meta-composeapps")
    assert "docker-moby:do_install: 01ab -> 23cd" in result.problems[0]


def test_a_run_without_the_test_of_signatures_does_not_pass():
    result = judge(output(leave_out=["signatures"]), 0, "meta-composeapps")
    assert result.status == "failed"
    assert result.problems == ["it did not run test_signatures"]


def test_a_run_that_broke_off_does_not_pass():
    assert judge(START, 1, "meta-composeapps").status == "failed"
    skipped = judge(START + END.format("SKIPPED (Missing dependencies)"), 0, "meta-composeapps")
    assert (skipped.status, skipped.problems) == ("failed", ["yocto-check-layer says: SKIPPED (Missing dependencies)"])
