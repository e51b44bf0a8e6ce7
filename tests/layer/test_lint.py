# SPDX-License-Identifier: MIT
"""oelint-adv over the layer, by the same function as scripts/check-layer."""

import shutil
from pathlib import Path

import pytest

from layercheck import lint

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path):
    """A copy of the layer and of the rules, to put faults into."""
    shutil.copytree(TOP / "meta-composeapps", tmp_path / "meta-composeapps",
                    ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / lint.CONFIGURATION, tmp_path)
    return tmp_path


def test_the_layer_has_no_findings(tmp_path):
    assert [str(finding) for finding in lint.findings(TOP, tmp_path)] == []


def test_each_rule_that_is_off_has_a_reason():
    off = lint.suppressed(TOP)
    assert "oelint.vars.homepageping" in off
    assert [rule for rule, why in off.items() if not why] == []


def test_faults_are_found(copy, tmp_path):
    recipe = copy / "meta-composeapps/recipes-composeapps/packagegroups/packagegroup-composeapps.bb"
    recipe.write_text(recipe.read_text().replace("LICENSE = ", "LICENCE = ") + 'COMPOSEAPPS_STOER = "/srv"\nA = "b" \n')
    found = lint.findings(copy, tmp_path / "out")
    assert {finding.path for finding in found} == {str(recipe.relative_to(copy))}
    assert {"oelint.vars.mispell", "trailing-space"} <= {finding.rule for finding in found}
    # A variable of ours that is set and never read is a misspelling too.
    assert any("COMPOSEAPPS_STOER" in finding.text for finding in found)


def test_a_rule_without_a_reason_is_named(copy):
    rules = copy / lint.CONFIGURATION
    rules.write_text(rules.read_text().rstrip() + "\n\n    oelint.vars.valuequoted\n")
    assert [rule for rule, why in lint.suppressed(copy).items() if not why] == ["oelint.vars.valuequoted"]
