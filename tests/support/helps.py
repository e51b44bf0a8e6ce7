# SPDX-License-Identifier: MIT
"""What every help of this project is to keep to."""

import re
import shlex

from composeapps.cli import helptext

PARTS = ("Examples", "Commands", "Arguments", "Options", "Common options", "Exit status", "Environment")


def exits_in(text):
    """Return the exit statuses that a help lists."""
    section = re.search(r"^Exit status:\n(.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)[1]
    return {int(number) for number in re.findall(r"^  (\d+)\b", section, re.MULTILINE)}


def check_width(text, columns):
    """Assert that no line is wider than so many columns, but for a single word that cannot be broken."""
    for line in text.splitlines():
        # A path, an address or what stands in quotes is not broken.
        assert len(line) <= min(columns, 80) or len(helptext.shell_words(line.removesuffix(" \\"))) == 1, line


def check_form(text, usage):
    """Assert that a help begins with a usage and a sentence, and has its parts in the one order."""
    lines = text.splitlines()
    assert lines[0].startswith(f"Usage: {usage}")
    sentence = " ".join(text.split("\n\n")[1].split())
    assert sentence.endswith(".") and sentence[0].isupper()
    headings = [line[:-1] for line in lines if line.endswith(":") and line[:-1] in PARTS]
    assert headings == [heading for heading in PARTS if heading in headings]
    assert {"Examples", "Common options", "Exit status"} <= set(headings)
    assert not re.search(r"</?[a-z]+>", text), "a help is no HTML"


def check_examples(parser, name, parse=None):
    """Assert that what the examples of a Parser say can be parsed.

    Arguments:
        name: the first word of each.
        parse: takes a list of words and ends with SystemExit for wrong ones; the parser's own by default.
    """
    assert parser.examples
    for command, _meaning in parser.examples:
        words = shlex.split(re.split(r" [|>] ", command)[0])
        if words[0] != name:
            # What comes next, with another command.
            assert words[0] == "composeapps" or words[0].startswith("scripts/")
            continue
        try:
            (parse or parser.parse_args)(words[1:])
        except SystemExit as end:
            assert end.code in (0, None), command
