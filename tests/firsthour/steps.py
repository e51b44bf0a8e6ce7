# SPDX-License-Identifier: MIT
"""The steps of the page, as one shell script: its commands, and the files that it has one write."""

import re
import shlex
from typing import NamedTuple

from support.pages import TOP, page

PAGE = TOP / "meta-composeapps" / "docs" / "app-developer.md"
MOST_COMMANDS = 10
# The section whose end is the app on a booted image, and the one that ends what was started.
LAST_SECTION, CLEAN_UP = "6-boot-it-with-no-network", "10-clean-up"

# What the last command has to show.
RUNS = re.compile(r"hello +httpd +running .*")


class Step(NamedTuple):
    """What one does next: ``command`` is a line of shell, or what writes the file that the page shows (``is_file``)."""

    command: str
    is_file: bool = False


def steps():
    """Return the Steps that follow a clone up to one's own app on a booted image, and those of cleaning up."""
    wanted, cleaning = [], []
    anchors = page(PAGE).anchors
    after = list(anchors).index(LAST_SECTION) + 1
    end = list(anchors.values())[after]
    for block in page(PAGE).blocks:
        if block.line > end and block.line < anchors[CLEAN_UP]:
            continue
        if any(mark.startswith("not run") for mark in block.marks):
            continue
        files = [mark.removeprefix("file:").strip() for mark in block.marks if mark.startswith("file:")]
        into = wanted if block.line < end else cleaning
        if files:
            path = shlex.quote(files[0])
            into.append(Step(f"mkdir -p \"$(dirname {path})\" && printf %s {shlex.quote(block.text)} > {path}", True))
        elif block.language == "sh":
            into += [Step(line) for line in block.text.splitlines() if line.strip() and not line.startswith("#")]
    return wanted, cleaning


def script(wanted, cleaning, lent=""):
    """Return a bash script: clones /srv/origin, runs the steps, cleans up; its status is that of the step that failed.

    ``lent`` is the path in the clone that is /srv/cache, or "". Before each step it prints a line ``step N: COMMAND``.
    """
    lines = ["set -u", "cd ~", "clean_up() {", *(f"  {step.command}" for step in cleaning), "}"]
    commands = [Step("git clone --quiet /srv/origin meta-composeapps && cd meta-composeapps"), *wanted]
    for number, step in enumerate(commands, 1):
        said = "write a file" if step.is_file else step.command
        lines += [f"printf 'step %s: %s\\n' {number} {shlex.quote(said)}",
                  f"{{ {step.command}; }} || {{ status=$?; [ {number} = 1 ] || clean_up; exit $status; }}"]
        if lent and number == 1:
            lines.append(f"mkdir -p $(dirname {lent}) && ln -s /srv/cache {lent}")
    return "\n".join([*lines, "clean_up", ""])
