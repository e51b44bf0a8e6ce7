# SPDX-License-Identifier: MIT
"""Scalars: what go-yaml takes them for, each seen in docker compose's own output."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composeapps.app import scalars


@pytest.mark.parametrize(("text", "value"), [
    ("", None), ("~", None), ("Null", None), ("nUll", "nUll"), ("TRUE", True), ("tRUE", "tRUE"), ("yes", "yes"),
    ("0", 0), ("-0", 0), ("00", 0), ("010", 8), ("-010", -8), ("0o10", 8), ("0O10", 8), ("0o_1", 1), ("0o", "0o"),
    ("0b", "0b"), ("0x", "0x"), ("0xDead_beef", 0xdeadbeef), ("-0X10", -16), ("+0b11", 3), ("0b12", "0b12"),
    ("08", 8.0), ("0_8", 8.0), ("0o8", "0o8"), ("1_2_3", 123), ("_1", "_1"), ("1__", 1), ("+", "+"), ("-", "-"),
    ("9223372036854775808", 2**63), ("+9223372036854775808", float(2**63)), ("18446744073709551616", float(2**64)),
    ("-9223372036854775808", -(2**63)), ("0x1_0000_0000_0000_0000", "0x1_0000_0000_0000_0000"),
    ("0b" + "1" * 64, 2**64 - 1), ("-0b" + "1" * 64, "-0b" + "1" * 64), ("1" * 400, "1" * 400),
    ("1.", 1.0), (".1", 0.1), (".1_0", ".1_0"), ("1_0.5_0", 10.5), ("1e2", 100.0), ("1E+2", 100.0), ("1e", "1e"),
    (".e1", ".e1"), (".", "."), ("..1", "..1"), ("-.5", -0.5), ("+.5", 0.5), ("1e999", "1e999"), (".Inf", math.inf),
    ("-.INF", -math.inf), (".iNF", ".iNF"), ("inf", "inf"), ("22:22", "22:22"), ("1:30:00", "1:30:00"), ("=", "="),
    ("<<", "<<"), ("١٢", "١٢"), ("1 ", "1 "), ("2020-02-29", "2020-02-29"),
])
def test_what_a_scalar_stands_for(text, value):
    found = scalars.resolve(text)
    assert (type(found), found) == (type(value), value)


def test_not_a_number():
    assert math.isnan(scalars.resolve(".nan")) and scalars.resolve("nan") == "nan"


@pytest.mark.parametrize(("text", "time"), [
    ("2020-02-29", True), ("2021-02-29", False), ("2000-2-9", True), ("2100-02-29", False), ("2020-00-01", False),
    ("2020-01-00", False), ("020-01-01", False), ("2020-01-01T1:2:3Z", True), ("2020-01-01t01:02:03.5+05:30", True),
    ("2020-01-01T01:02:03", False), ("2020-01-01 01:02:03", True), ("2020-01-01 01:02:03Z", False),
    ("2020-01-01 24:00:00", False), ("2020-01-01T01:02Z", False), ("2020-01-01T01:02:03,25Z", True),
    ("2020-01-01T01:02:03+5:30", False), ("2020-01-01T01:02:03+25:00", False), ("2020-01-01x", False),
])
def test_what_is_a_time(text, time):
    assert scalars.is_time(text) is time


@given(st.text(alphabet="0123456789+-._eExXoObBaftTZ: ", max_size=40))
def test_whatever_is_written_is_something(text):
    assert isinstance(scalars.resolve(text), (type(None), bool, int, float, str))
