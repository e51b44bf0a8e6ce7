# SPDX-License-Identifier: MIT
"""The combinations of kas files that check-layer goes through."""

from pathlib import Path

import pytest

from layercheck.combinations import COMBINATIONS, select
from layercheck.errors import CheckError

TOP = Path(__file__).resolve().parents[2]


def test_each_file_exists_and_each_fragment_is_checked():
    there = {path.stem for path in (TOP / "kas").glob("*.yml") if not path.name.endswith(".lock.yml")}
    assert {part for combination in COMBINATIONS for part in combination.parts} == there


def test_names_are_unique():
    assert len({combination.name for combination in COMBINATIONS}) == len(COMBINATIONS)


def test_selection_keeps_the_order_of_the_list():
    assert [combination.name for combination in select(["lmp", "qemuarm64"])] == ["qemuarm64", "lmp"]
    assert select([]) == list(COMBINATIONS)


def test_a_misspelt_name_gets_a_hint():
    with pytest.raises(CheckError, match="did you mean qemuarm64"):
        select(["qemu-arm64"])
