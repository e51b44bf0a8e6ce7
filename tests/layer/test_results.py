# SPDX-License-Identifier: MIT
"""What --resume leaves out, and the exit status."""

import pytest

from layercheck.report import exit_status
from layercheck.results import Record, Result, Status, fingerprint


def test_only_what_passed_with_the_same_files_is_left_out(tmp_path):
    path = tmp_path / "results.json"
    Record(path).add(Result("parse", "a", Status.PASSED, "3160 recipes", 250.0, {"recipes": 3160}), "one")
    Record(path).add(Result("parse", "b", Status.FAILED, "1 error"), "one")
    record = Record(path)
    again = record.passed("parse", "a", "one")
    assert (again.summary, again.counts, again.reused) == ("3160 recipes", {"recipes": 3160}, True)
    assert record.passed("parse", "a", "two") is None
    assert record.passed("parse", "b", "one") is None
    assert record.passed("dry-run", "a", "one") is None


def test_a_damaged_record_counts_as_empty(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"parse a": ')
    assert Record(path).passed("parse", "a", "one") is None


def test_the_fingerprint_follows_names_and_contents_alone(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("1")
    first = fingerprint(tmp_path, ["d"], "x")
    (tmp_path / "d" / "a").write_text("1")
    (tmp_path / "other").write_text("1")
    assert fingerprint(tmp_path, ["d"], "x") == first
    assert fingerprint(tmp_path, ["d"], "y") != first
    (tmp_path / "d" / "b").write_text("")
    assert fingerprint(tmp_path, ["d"], "x") != first


@pytest.mark.parametrize(("statuses", "expected"), [
    ([Status.PASSED], 0),
    ([Status.PASSED, Status.UNREACHED], 3),
    ([Status.UNREACHED, Status.FAILED, Status.PASSED], 1),
])
def test_exit_status_tells_failed_from_not_reached(statuses, expected):
    assert exit_status([Result("parse", "x", status, "") for status in statuses]) == expected
