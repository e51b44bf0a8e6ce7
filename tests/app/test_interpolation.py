# SPDX-License-Identifier: MIT
"""Variables and .env files, as docker compose 2.26 answered for each of these texts."""

import contextlib

import pytest

from composeapps.app import interpolation
from composeapps.app.interpolation import parse_environment, substitute
from support.steps import beyond_linear, counted

ENVIRONMENT = {"A": "1", "EMPTY": "", "B": "two words"}


@pytest.mark.parametrize("text, value", [
    ("$A", "1"), ("${A}x", "1x"), ("x$A$B", "x1two words"), ("$NONE", ""), ("${NONE}", ""), ("$$A", "$A"),
    ("$$${A}", "$1"),
    ("${A-d}", "1"), ("${NONE-d}", "d"), ("${EMPTY-d}", ""), ("${EMPTY:-d}", "d"), ("${NONE:-}", ""),
    ("${A:+o}", "o"), ("${EMPTY:+o}", ""), ("${EMPTY+o}", "o"), ("${NONE+o}", ""),
    ("${A?need}", "1"), ("${EMPTY?need}", ""), ("${NONE:-${A}}", "1"), ("${NONE:-a${NONE:-${B}}b}c", "atwo wordsbc"),
    ("${NONE:-$$x}", "$x"), ("${NONE:-a:b-c?d+e}", "a:b-c?d+e"), ("a$", "a$"), ("$-", "$-"), ("$1", "$1"), ("}{", "}{"),
    ("${A}}", "1}"),
])
def test_a_variable_becomes_its_value(text, value):
    assert substitute(text, ENVIRONMENT) == value


@pytest.mark.parametrize("text", [
    "${A", "${", "${}", "${1a}", "${A:}", "${A:x}", "${A.b}", "${A b}", "${NONE:-${A}", "${NONE:?why}", "${NONE?why}",
    "${EMPTY:?why}", "${A!}", "${NONE:-" * 30 + "}" * 30,
])
def test_what_compose_refuses_is_refused(text):
    with pytest.raises(ValueError, match="clos|name|requir|deep"):
        substitute(text, ENVIRONMENT)


@pytest.mark.parametrize("text, found", [
    ("A=1\n\n# B=2\n  C = x y \n", {"A": "1", "C": "x y"}), ("export A=1\nexport\tB=2", {"A": "1", "B": "2"}),
    ("A: 1\nB:2", {"A": "1", "B": "2"}), ("A='x $Y'", {"A": "x $Y"}), ('Y=1\nA="x $Y"', {"Y": "1", "A": "x 1"}),
    ("Y=1\nA=x${Y}", {"Y": "1", "A": "x1"}), ("A=${Y:-d}\nY=1", {"A": "d", "Y": "1"}), ("A=x # c", {"A": "x"}),
    ("A=x#c\nB=#d", {"A": "x#c", "B": "#d"}), ("A='x' # c", {"A": "x"}), ('A="a\\nb\\"c\\$Y"', {"A": 'a\nb"c$Y'}),
    ("A='a\\nb'", {"A": "a\\nb"}), ("A=a\\nb", {"A": "a\\nb"}), ("A='a\nb'\nB=1", {"A": "a\nb", "B": "1"}),
    ("A=\nB=''", {"A": "", "B": ""}), ("A=a=b", {"A": "a=b"}), ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ("\ufeffA=1", {"A": "1"}), ("A=1\nA=2", {"A": "2"}), ("HOME=/x\nA=$HOME", {"HOME": "/x", "A": "/root"}),
    ("HOME", {"HOME": "/root"}), ("NONE", {}),
])
def test_an_environment_file_says_what_compose_reads_in_it(text, found):
    assert parse_environment(text, {"HOME": "/root"}) == found


@pytest.mark.parametrize("text", ["A='x", 'A="x', "=1", "A!=1", "A B=1", "ok=1\nA=${"])
def test_an_environment_file_that_compose_refuses_names_the_line(text):
    with pytest.raises(ValueError, match=f"^line {text.count(chr(10)) + 1}: "):
        parse_environment(text)


@pytest.mark.parametrize("text", [
    "A=1\n" + "".join(f"V{number + 1}=$V{number}$V{number}\n" for number in range(200)).replace("$V0", "xx"),
    "A=" + "${B:-" * 5000, "A='" + "\\'" * 100_000, "A=\"" + "\\" * 200_000, "A" * 250_000, " " * 250_000,
    "A=" + "$" * 250_000, "A=" + "x #" * 80_000, "\n" * 250_000, "".join(f"A{number}=$X\n" for number in range(25_000)),
])
def test_no_file_takes_long_or_much(text):
    found = {}
    # So often, what takes the square of one long line does not come to an end in any test's time.
    for _ in range(1 if text.count("\n") > 1 else 20):
        with contextlib.suppress(ValueError):
            found = parse_environment(text)
    assert sum(map(len, found.values())) <= interpolation.LARGEST


@pytest.mark.parametrize("line", ["A{0}=1\n", "A{0}=$X\n", "A{0}=${{A{1}}}\n", "A{0}='a\nb'\n", "# {0}\n", "A={0}\n"])
def test_lines_take_steps_by_their_number(line):
    sizes = (100, 200, 400)
    counts = [counted(parse_environment, "".join(line.format(number, number - 1) for number in range(1, size)))[1]
              for size in sizes]
    assert beyond_linear(sizes, counts) == []
