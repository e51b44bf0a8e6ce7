# SPDX-License-Identifier: MIT
"""Running a page: its blocks in their order, each as its marks say.

A mark is an HTML comment before a block: ``<!-- slow; status: 8 -->``.

======================  ============================================================================
``not run: REASON``     it is not run
``slow``                it is run, but not in the sample
``status: N``           the exit status that it has to have, instead of 0
``output``              it is what the block before prints: "…" stands for any text, a line "…" for any lines
``file: PATH``          it is written to PATH
======================  ============================================================================
"""

import re
import time
from pathlib import Path
from typing import NamedTuple

from pagerun.shell import Shell
from support.pages import page

# Seconds that a block of the sample may take, and any other one.
SAMPLE_LIMIT, LIMIT = 600, 3 * 3600
LANGUAGES = ("sh",)


class Result(NamedTuple):
    """What became of a block: its ``line`` in the page, its ``text``, and a ``problem`` in a sentence, "" for none."""

    line: int
    text: str
    seconds: float
    problem: str
    output: str


def marks_of(block):
    """Return {kind of mark: what it says, "" for nothing}."""
    return {kind.strip(): value.strip() for kind, _colon, value in (mark.partition(":") for mark in block.marks)}


def is_run(block, sample):
    """Tell whether a block is one that something is done with: it is run, compared or written."""
    marks = marks_of(block)
    if "not run" in marks or (sample and "slow" in marks):
        return False
    return block.language in LANGUAGES or "output" in marks or "file" in marks


def blocks(path, sample):
    """Return the blocks of a page that something is done with."""
    return [block for block in page(path).blocks if is_run(block, sample)]


def run(path, directory, sample=False, told=lambda result: None):
    """Run a page.

    Arguments:
        path: the page.
        directory: a fresh clone.
        sample: leave out what is slow.
        told: called with the Result of each block that is run.

    Returns the Results up to the first with a problem: what comes after it builds on it.
    """
    results, printed = [], None
    with Shell(directory) as shell:
        for block in page(path).blocks:
            marks = marks_of(block)
            if not is_run(block, sample):
                # What is shown of a block that was not run is not compared either.
                printed = None if block.language in LANGUAGES else printed
                continue
            if "file" in marks:
                target = shell.directory / marks["file"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text)
                continue
            if block.language in LANGUAGES:
                started = time.monotonic()
                status, printed = shell.run(block.text, SAMPLE_LIMIT if sample else LIMIT)
                problem = _judge(status, int(marks.get("status", 0)))
                result = Result(block.line, block.text, time.monotonic() - started, problem, printed)
            elif printed is None:
                continue
            else:
                problem = "" if fits(block.text, printed) else "the output is not the one that the page shows"
                result = Result(block.line, block.text, 0.0, problem, printed)
            results.append(result)
            told(result)
            if problem:
                break
    return results


def _judge(status, wanted):
    if status is None:
        return "it did not end in time, or ended the shell"
    return "" if status == wanted else f"its exit status is {status}, not {wanted}"


def fits(shown, printed):
    """Tell whether what was printed is what a page shows: "…" is any text in a line, a line of it any lines."""
    pattern = []
    for line in shown.rstrip().split("\n"):
        if line.strip() == "…":
            pattern.append(r"(?:.*\n)*?")
        else:
            pattern.append(".*?".join(map(re.escape, line.rstrip().split("…"))) + "\n")
    lines = "".join(f"{line.rstrip()}\n" for line in printed.rstrip().split("\n"))
    return re.fullmatch("".join(pattern), lines) is not None


def all_pages():
    """Return the pages that may have something to run: all but the decisions."""
    from support import statements

    return [path for path in statements.pages() if "decisions" not in Path(path).parts]
