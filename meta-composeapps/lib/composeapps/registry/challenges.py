# SPDX-License-Identifier: MIT
"""Challenges of ``WWW-Authenticate`` headers (RFC 9110, 11.2 and 11.6.1), read in one pass.

A header may hold several challenges, and a list of parameters looks like a list of challenges: what
follows a comma is a parameter when ``=`` comes after its name, else the next challenge's scheme.
"""

from typing import NamedTuple

# More than this is no challenge of a registry's; the rest is left out.
LONGEST, MOST = 16 * 1024, 32
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TOKEN68 = frozenset("-._~+/0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# What a value without quotes is made of: a token, and what those write who forget the quotes around an address.
_BARE = _TOKEN | frozenset("/:@?=")
_SPACE = " \t"


class Challenge(NamedTuple):
    """One challenge: its scheme and the names of its parameters in lower case; ``token68`` where it has one."""

    scheme: str
    params: dict
    token68: str = ""


def parse_challenges(values):
    """Return the Challenges that headers hold, in order.

    Arguments:
        values: the values of all ``WWW-Authenticate`` headers of an answer.

    What is malformed is passed over up to the next comma; nothing is raised.
    """
    found = []
    for value in values:
        _Reader(value[:LONGEST], found).run()
    return found[:MOST]


class _Reader:
    def __init__(self, text, found):
        self._text, self._at, self._found = text, 0, found

    def run(self):
        end = len(self._text)
        while self._at < end and len(self._found) < MOST:
            self._skip(_SPACE + ",")
            name = self._run_of(_TOKEN)
            if not name:
                self._pass_over()
                continue
            spaces = self._skip(_SPACE)
            if self._found and self._peek() == "=":
                self._parameter(self._found[-1].params, name)
                continue
            self._found.append(Challenge(name.lower(), {}))
            if spaces:
                self._first(name.lower())

    def _first(self, scheme):
        """Read what stands beside a scheme: a parameter, a token68, or nothing."""
        start = self._at
        word = self._run_of(_TOKEN68)
        padding = self._run_of("=")
        self._skip(_SPACE)
        if word and self._peek() in (",", ""):
            self._found[-1] = Challenge(scheme, {}, word + padding)
            return
        self._at = start
        name = self._run_of(_TOKEN)
        self._skip(_SPACE)
        if name and self._peek() == "=":
            self._parameter(self._found[-1].params, name)
        else:
            self._pass_over()

    def _parameter(self, params, name):
        self._at += 1
        self._skip(_SPACE)
        value = self._quoted() if self._peek() == '"' else self._run_of(_BARE)
        if value is not None:
            # The first of several counts, as for whoever wrote a realm and did not expect another after it.
            params.setdefault(name.lower(), value)
        self._skip(_SPACE)
        if self._peek() not in (",", ""):
            self._pass_over()

    def _quoted(self):
        """Return a quoted string's content; None, at the end, for one that does not end."""
        text, parts, at = self._text, [], self._at + 1
        while at < len(text):
            char = text[at]
            if char == '"':
                self._at = at + 1
                return "".join(parts)
            if char == "\\":
                at += 1
                char = text[at:at + 1]
            parts.append(char)
            at += 1
        self._at = len(text)
        return None

    def _pass_over(self):
        """Go to the next comma outside of quotes."""
        while self._at < len(self._text) and self._text[self._at] != ",":
            if self._text[self._at] == '"':
                self._quoted()
            else:
                self._at += 1

    def _peek(self):
        return self._text[self._at:self._at + 1]

    def _skip(self, chars):
        start = self._at
        while self._at < len(self._text) and self._text[self._at] in chars:
            self._at += 1
        return self._at - start

    def _run_of(self, chars):
        start = self._at
        while self._at < len(self._text) and self._text[self._at] in chars:
            self._at += 1
        return self._text[start:self._at]
