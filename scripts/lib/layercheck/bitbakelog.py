# SPDX-License-Identifier: MIT
"""Read what BitBake says (its plain "knotty" output) and tell what is about our layer."""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

_PARSED = re.compile(r"Parsing of (\d+) \.bb files complete \(\d+ cached, \d+ parsed\)\. "
                     r"(\d+) targets, (\d+) skipped, (\d+) masked, (\d+) errors\.")
_TASK = re.compile(r"NOTE: Running (?:setscene )?task (\d+) of (\d+) ")
_SUMMARY = re.compile(r"NOTE: Tasks Summary: Attempted (\d+) tasks of which (\d+) didn't need to be rerun and (.*)")
# A message goes on over the lines that follow it, up to the next that starts something new. The first one may stand
# behind "Parsing recipes...", whose line is not yet ended then.
_MESSAGE = re.compile(r"(?:\w[\w ]*\.\.\.)?(WARNING|ERROR|FATAL): ")
_NEW = re.compile(r"(NOTE|DEBUG|VERBOSE|INFO|Summary): ?|(Loading|Loaded|Parsing|Initialising|Checking|Sstate) |"
                  r"done\.$|Build Configuration|\d{4}-\d\d-\d\d ")
_PATH = re.compile(r"/[^\s:,;'\"()\[\]]+")


class Ownership:
    """Decides whether a message is about our layer: it names a file, a variable or a recipe of the layer.

    Arguments:
        layer: the directory of the layer.
    """

    def __init__(self, layer):
        self._layer = os.path.realpath(layer)
        documentation = Path(layer, "conf", "composeapps-documentation.conf").read_text()
        documented = re.findall(r"^(\w+)\[doc\]", documentation, re.M)
        recipes = {path.name.removesuffix(".bb").split("_")[0] for path in Path(layer).rglob("*.bb")}
        names = "|".join(sorted(map(re.escape, {*documented, *recipes}), key=len, reverse=True))
        self._names = re.compile(rf"(?<![\w-])(?:COMPOSEAPPS?_\w+|composeapps?-\w[\w-]*|{names})(?![\w-])")

    def owns(self, message):
        """Tell whether ``message`` (with the lines that go on with it) is about the layer."""
        for path in _PATH.findall(message):
            # BitBake writes paths as bblayers.conf does, with "..".
            normal = os.path.normpath(path)
            if normal == self._layer or normal.startswith(self._layer + "/"):
                return True
        # The repository may be checked out in a directory called like the layer: names count outside paths only.
        return bool(self._names.search(_PATH.sub(" ", message)))


@dataclass
class Parsed:
    """BitBake's own count after parsing."""

    recipes: int
    targets: int
    skipped: int
    masked: int
    errors: int


@dataclass
class Reading:
    """What a log said.

    Arguments:
        parsed: a Parsed, or None when parsing did not end.
        parse_seconds: from the first line to that count.
        tasks: how many tasks the run attempted, or None when it did not get to its end.
        outcome: how BitBake says they went: "all succeeded." or the number that failed.
        messages: (kind, text, during_parsing) of warnings and errors, each text once.
        at: what BitBake is doing just now.
    """

    parsed: Parsed | None = None
    parse_seconds: float = 0.0
    tasks: int | None = None
    outcome: str = ""
    messages: list = field(default_factory=list)
    at: str = ""

    def select(self, kinds, during_parsing):
        """Return the texts of the messages of these kinds, from the time up to the end of parsing or after it.

        Arguments:
            kinds: some of "WARNING", "ERROR" and "FATAL".
        """
        return [text for kind, text, parsing in self.messages if kind in kinds and parsing == during_parsing]


class Reader:
    """Takes the output line by line; ``reading`` tells at any time what it meant so far."""

    def __init__(self):
        self.reading = Reading()
        self._started = time.monotonic()
        self._open = None
        self._parsing = True

    def line(self, line):
        """Take one line, without its end."""
        if line.startswith("Parsing recipes"):
            self.reading.at = "parsing"
        message = _MESSAGE.match(line)
        if message:
            self._close()
            self._open = [message[1], [line[message.end():]]]
            return
        if self._open and not _NEW.match(line) and line.strip():
            self._open[1].append(line)
            return
        self._close()
        self._count(line)

    def end(self):
        """Take the end of the output; returns the Reading."""
        self._close()
        return self.reading

    def _close(self):
        if self._open:
            entry = self._open[0], "\n".join(self._open[1]), self._parsing
            if entry not in self.reading.messages:
                self.reading.messages.append(entry)
        self._open = None

    def _count(self, line):
        found = _PARSED.search(line)
        if found:
            self.reading.parsed = Parsed(*map(int, found.groups()))
            self.reading.parse_seconds = time.monotonic() - self._started
            self.reading.at = "working out the tasks"
            self._parsing = False
        if line.startswith("NOTE: Resolving any missing task queue dependencies"):
            # With every recipe in its cache BitBake parses, and counts, nothing.
            self._parsing = False
        found = _TASK.match(line)
        if found:
            self.reading.at = f"task {found[1]} of {found[2]}"
        found = _SUMMARY.match(line)
        if found:
            self.reading.tasks, self.reading.outcome = int(found[1]), found[3]


def read(text):
    """Return the Reading of a whole log."""
    reader = Reader()
    for line in text.splitlines():
        reader.line(line)
    return reader.end()
