# SPDX-License-Identifier: MIT
"""What check-layer makes of the oeqa cases' outcomes, and what it says when there is no image to run them in."""

from types import SimpleNamespace

import pytest

import hostsetup
from layercheck import oeqa
from layercheck.progress import Progress
from layercheck.results import Status
from oeqatarget.cases import Result


@pytest.mark.parametrize("outcomes, status", [
    (("passed", "passed"), Status.PASSED), (("passed", "failed"), Status.FAILED),
    # A case that the image lacks the package for shows nothing.
    (("passed", "skipped"), Status.FAILED), ((), Status.FAILED)])
def test_the_cases_pass_only_all_together(outcomes, status):
    result = oeqa.judge([Result(f"case_{at}", outcome, "because") for at, outcome in enumerate(outcomes)], "layer")
    assert result.status == status and result.counts["passed"] == outcomes.count("passed")
    assert result.problems == [f"case_{at} {outcome}: because" for at, outcome in enumerate(outcomes)
                               if outcome != "passed"]


def test_without_an_image_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hostsetup, "BUILD", tmp_path)
    kas = SimpleNamespace(checkout=lambda combination, log: None)
    context = SimpleNamespace(directory=tmp_path, layer=SimpleNamespace(name="layer"), kas=kas,
                              progress=Progress(quiet=True))
    result = oeqa.run(context, None)
    assert result.status == Status.UNREACHED and "scripts/build-image" in result.problems[0]
