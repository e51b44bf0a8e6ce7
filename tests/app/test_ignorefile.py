# SPDX-License-Identifier: MIT
"""Ignore files: what .dockerignore means, as moby's own matcher has it."""

import os
import random
import re

import pytest

from composeapps.app import bundle, ignorefile
from composeapps.app.ignorefile import IgnoreRules
from composeapps.errors import UsageError


@pytest.mark.parametrize(("text", "left_out", "kept"), [
    ("\ufeffa\n", "a", "b"), ("\ufeff#a\n", "", "#a a"), (" #a\n", "#a", "a"), ("a  \r\nb\t\r\n", "a b", "c"),
    ("a\x0bb\n", "a\x0bb", "a b"), ("a\u2028b\n", "a\u2028b", "a b"), ("! a\na\n!  a \n", "", "a"),
    ("/a/./b/../c/\n", "a/c a/c/d", "a a/b c"), ("a/\n", "a a/b", "b"), ("a**b\n", "ab a/b ax/b", "axb"),
    ("**b\n", "b ab a/xb", "ba"), ("**/b\n", "b a/b a/c/b b/c", "ab"), ("a/**\n", "a/b a/b/c", "a b"),
    ("a/**/b\n", "a/b a/x/y/b", "ab a/xb"), ("**\n!keep\n", "a a/b", "keep keep/x"), ("[a-c]x\n", "ax cx", "dx"),
    ("[^a]x\n", "bx", "ax"), ("[!a]x\n", "!x ax", "bx"), ("[a\\-c]x\n", "-x ax", "bx"),
    ("]\n", "]", "a"),
    ("\\!a\n", "!a", "a"), ("a\\*\n", "a*", "ab"), ("a?c\n", "abc a.c", "ac a/c"),
    ("(a|b)+{2}$^.\n", "(a|b)+{2}$^.", "a"),
    ("../a\n.\n/\n", "", "a"), ("caf?\n", "café", "cafés"), ("a\n!a/b\na/b/c\n", "a a/x a/b/c", "a/b a/b/d"),
])
def test_what_a_pattern_covers(text, left_out, kept):
    rules = IgnoreRules(text.encode())
    names = left_out.split(" ") if left_out else []
    assert [name for name in names if not rules.ignores(name)] == []
    assert [name for name in kept.split(" ") if rules.ignores(name)] == []


@pytest.mark.parametrize("pattern", ["[y-b]", "[", "a[", "[a", "[]a]", "[-a]", "[a-]", "[^", "a\\", "!", "! ", "[\\"])
def test_what_is_no_pattern_is_refused_with_its_line(pattern):
    with pytest.raises(UsageError, match=r"^it, line 3: "):
        IgnoreRules(f"fine\n# {pattern}\n{pattern}\n".encode(), "it")


def test_names_that_are_not_utf_8(tmp_path):
    (tmp_path / "docker-compose.yml").write_text("")
    odd = os.fsdecode(b"na\xefve.txt")
    (tmp_path / odd).write_text("")
    with pytest.raises(UsageError, match=r"the name of the file b'na\\xefve.txt' is not UTF-8: rename it, or leave"):
        bundle.entries(tmp_path)
    (tmp_path / ".composeappignores").write_bytes(b"na\xefve.*\n")
    assert list(bundle.entries(tmp_path)) == ["docker-compose.yml"]
    assert IgnoreRules(b"*.\xff\n").ignores(os.fsdecode(b"a.\xff"))


def test_patterns_without_end_are_matched_in_time():
    rules = IgnoreRules(("**/" * 200 + "x\n" + "**" * 200 + "y\n").encode())
    assert not rules.ignores("a/" * 200 + "b")


@pytest.mark.parametrize("pattern", [b"*a" * 150 + b"c", b"*/" + b"*ab?" * 60 + b"x"])
def test_stars_without_end_are_matched_in_time(pattern):
    # Who tries all ways does not come to an end.
    assert not IgnoreRules(pattern).ignores("a" * 250) and not IgnoreRules(pattern).ignores("a" + "/ab" * 80)
    assert IgnoreRules(b"*a*b*c").ignores("xaaxbbxcc") and not IgnoreRules(b"*a*b*c").ignores("xa/bc")


@pytest.mark.parametrize(("pattern", "left_out", "kept"), [
    ("**/a" * 100, "a/" * 99 + "a", "a/" * 90 + "b"), ("**/a/" * 60 + "b", "x/a/" * 60 + "b", "a/" * 120 + "c"),
    ("*[ab]" * 100 + "c", "ab" * 60 + "c", "ab" * 120), ("a**" * 100 + "b", "a" * 100 + "b", "a" * 150 + "c"),
], ids=lambda value: value[:8])
def test_wildcards_of_any_kind_without_end_are_matched_in_time(pattern, left_out, kept):
    rules = IgnoreRules(pattern.encode())
    assert rules.ignores(left_out) and rules.ignores(f"{left_out}/below") and not rules.ignores(kept)


@pytest.mark.parametrize("seed", range(20))
def test_both_ways_to_match_say_the_same(seed):
    chance = random.Random(seed)
    for _ in range(300):
        pattern = "".join(chance.choice(("a", "b", "/", "*", "**", "**/", "?", "[ab]", "[^a]", "[^b/]"))
                          for _ in range(chance.randrange(1, 8)))
        items = ignorefile._items(pattern)
        steps, regex = ignorefile._Steps(items), re.compile("".join(items), re.DOTALL)
        for _ in range(10):
            path = "/".join("".join(chance.choice("abc") for _ in range(chance.randrange(1, 4)))
                            for _ in range(chance.randrange(1, 4)))
            parts = path.split("/")
            prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
            assert steps.matches(path, prefixes) == any(map(regex.fullmatch, prefixes)), (pattern, path)
