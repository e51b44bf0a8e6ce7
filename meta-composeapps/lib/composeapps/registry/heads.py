# SPDX-License-Identifier: MIT
"""The head of an HTTP/1.1 answer (RFC 9112) and the headers that a registry client reads, each in one pass.

Every function takes what a stranger wrote, and raises nothing but ProtocolError.
"""

from typing import NamedTuple

# All of a head, and its lines.
MOST_BYTES, MOST_LINES = 64 * 1024, 256
# Sizes have fewer digits; Python refuses to read endless numbers.
_DIGITS = 18


class ProtocolError(ConnectionError):
    """What answers does not speak HTTP as it should; another try may reach somebody who does."""


class Headers:
    """Headers of an answer, their names without regard to case."""

    def __init__(self, pairs=()):
        self._values = {}
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def get(self, name, default=None):
        """Return the first value of a header."""
        return self._values.get(name.lower(), [default])[0]

    def all(self, name):
        """Return all values of a header, in order."""
        return self._values.get(name.lower(), [])

    def has(self, name, word):
        """Tell whether a header's list has ``word``, which is in lower case."""
        return any(word == part.strip().lower() for value in self.all(name) for part in value.split(","))


class Head(NamedTuple):
    """Status, reason and Headers of an answer; ``version`` is 10 or 11."""

    status: int
    reason: str
    headers: Headers
    version: int = 11


def parse_head(data):
    """Read a head (bytes, without the empty line that ends it)."""
    lines = data.split(b"\n")
    if len(lines) > MOST_LINES:
        raise ProtocolError(f"the answer has more than {MOST_LINES} headers")
    parts = lines[0].decode("latin-1").split(None, 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or len(parts[1]) != 3 or not _number(parts[1]):
        raise ProtocolError("what answers is no HTTP/1.1 server")
    pairs = []
    for raw in lines[1:]:
        line = raw.decode("latin-1").rstrip("\r")
        if line[:1] in (" ", "\t"):
            # A folded line, which is obsolete (RFC 9112, 5.2), belongs to the one before.
            if pairs:
                pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ProtocolError("a header of the answer is malformed")
        pairs.append((name, value.strip()))
    reason = parts[2].strip() if len(parts) > 2 else ""
    return Head(int(parts[1]), reason, Headers(pairs), 10 if parts[0] == "HTTP/1.0" else 11)


def content_length(headers):
    """Return the ``Content-Length``, None without one; raises ProtocolError for several that differ (RFC 9112, 6.3)."""
    values = {part.strip() for value in headers.all("Content-Length") for part in value.split(",")}
    if not values:
        return None
    if len(values) > 1 or not _number(next(iter(values))):
        raise ProtocolError("the answer has no proper Content-Length")
    return int(values.pop())


def chunk_size(line):
    """Return the size of a chunk from the line before it (bytes)."""
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 16 or not set(digits) <= set(b"0123456789abcdefABCDEF"):
        raise ProtocolError("the answer's chunks are malformed")
    return int(digits, 16)


def content_range(value):
    """Return (first byte, last byte, length of the whole or None) of a ``Content-Range``, or None when it is none."""
    unit, _, rest = (value or "").strip().partition(" ")
    span, slash, whole = rest.strip().partition("/")
    first, dash, last = span.partition("-")
    if unit.lower() != "bytes" or not slash or not dash or not _number(first) or not _number(last):
        return None
    if int(last) < int(first) or not (whole == "*" or _number(whole)):
        return None
    return int(first), int(last), None if whole == "*" else int(whole)


def seconds(value):
    """Return the number of seconds that a header gives, or None."""
    value = (value or "").strip()
    return float(value) if _number(value) else None


def _number(text):
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS
