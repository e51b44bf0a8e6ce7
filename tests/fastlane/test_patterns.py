# SPDX-License-Identifier: MIT
"""No regular expression of the package is more than linear in what others write.

Each compiled pattern, and each that stands in a call of ``re``, is tried in the way it is used on long words
of many alphabets. What counts is how the work grows with a word's length, not how long it takes.
"""

import ast
import importlib
import itertools
import re
import time
from pathlib import Path

import pytest

import composeapps
from composeapps.patterns import Pattern

TOP = Path(composeapps.__file__).parent
SOURCES = sorted(TOP.rglob("*.py"))
SCANS = ("search", "findall", "finditer", "sub", "subn", "split")
# What is repeated; and what may stand at the end, so that the word as a whole does not match.
PIECES = ("a", "A", "0", "f", "-", "_", ".", ":", "/", "@", " ", "\t", "\n", "=", '"', "'", "\\", "#", "$", "${",
          "{", "}", "[", "]", "(", ",", ";", "%", "*", "?", "!", "~", "+", "a/", "a.", "a-", "a:", "a=", "a,", "a ",
          "0.", "0_", "0:", "1-", '\\"', '"a', "a=b,", 'a="b",', "a\n", " \n", "ä", "\x00")
TAILS = ("", "!", "\n")
# Characters at the most, and seconds of CPU after which the growth is judged.
LONGEST, JUDGED = 2**15, 0.1


def _module(path):
    name = ".".join(("composeapps", *path.relative_to(TOP).with_suffix("").parts)).removesuffix(".__init__")
    return importlib.import_module(name)


def _compiled(value, depth=0):
    """Yield the patterns in a value: itself, and what containers and classes hold."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, Pattern):
        yield value.compiled()
    elif depth < 3 and isinstance(value, dict):
        for each in (*value, *value.values()):
            yield from _compiled(each, depth + 1)
    elif depth < 3 and isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _compiled(each, depth + 1)
    elif isinstance(value, type) and value.__module__.startswith("composeapps"):
        for each in vars(value).values():
            yield from _compiled(each, depth + 1)


def _patterns():
    """Return {(pattern, whether it is searched for): where it stands}."""
    text = "\n".join(path.read_text() for path in SOURCES)
    found = {}
    for path in SOURCES:
        where = str(path.relative_to(TOP))
        if path.name == "__main__.py":
            continue
        for name, value in vars(_module(path)).items():
            for pattern in _compiled(value):
                direct = isinstance(value, re.Pattern | Pattern)
                uses = set(re.findall(rf"\b{re.escape(name)}\.(\w+)", text)) if direct else {"match"}
                found.setdefault((pattern, bool(uses & set(SCANS))), f"{where}: {name}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args \
                    and isinstance(node.func.value, ast.Name) and node.func.value.id == "re" \
                    and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str | bytes):
                pattern = re.compile(node.args[0].value)
                found.setdefault((pattern, node.func.attr in SCANS), f"{where}:{node.lineno}")
    return found


PATTERNS = _patterns()


def _prefix(pattern):
    """Return the literal text that a pattern begins with."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    return re.match(r"[\w :=/@\"'-]*", text)[0]


def _work(pattern, scan, word):
    began = time.process_time()
    if scan:
        for _found in pattern.finditer(word):
            pass
    else:
        pattern.match(word)
        pattern.fullmatch(word)
    return time.process_time() - began


def _grows(pattern, scan, make):
    """Tell whether the work for a word that is four times as long is by far more than four times as much."""
    length, before = 32, None
    while length <= LONGEST:
        word = make(length)
        word = word.encode() if isinstance(pattern.pattern, bytes) else word
        work = _work(pattern, scan, word)
        if work > JUDGED:
            again = min(work, *(_work(pattern, scan, word) for _try in range(2)))
            return before is None or again > 8 * max(before, JUDGED / 32)
        length, before = length * 4, work
    return False


def _maker(prefix, piece, tail):
    return lambda length: prefix + (piece * length)[:length] + tail


@pytest.mark.parametrize(("pattern", "scan"), PATTERNS,
                         ids=[f"{where} {scan}" for (_p, scan), where in PATTERNS.items()])
def test_a_long_word_is_no_more_work_than_it_is_long(pattern, scan):
    words = itertools.product({"", _prefix(pattern)}, PIECES, TAILS)
    bad = next((word for word in words if _grows(pattern, scan, _maker(*word))), None)
    assert bad is None, f"{PATTERNS[pattern, scan]}: {pattern.pattern!r}"


def test_the_patterns_are_found_and_growth_is_told():
    assert len(PATTERNS) > 20
    assert _grows(re.compile("[a-z]+@"), True, lambda n: "a" * n)
    assert not _grows(re.compile("[a-z]+@"), False, lambda n: "a" * n)
