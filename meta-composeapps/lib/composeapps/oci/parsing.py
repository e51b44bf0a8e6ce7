# SPDX-License-Identifier: MIT
"""JSON that others wrote, read within bounds: its bytes, its values, its numbers, its texts.

Two readers may differ about a key that is given twice, and a reader that takes whatever comes can be
made to take all memory; so what is not plain is refused, by a sentence.
"""

import json
import re

from composeapps.errors import CorruptError
from composeapps.patterns import Pattern

# Manifests above this are refused by registries and by the field's readers alike.
MAX_DOCUMENT = 4 * 1024 * 1024
# Each value takes up to 250 bytes of memory; a document of 4 MiB could hold two million.
MAX_VALUES = 100_000
# What a 64-bit number holds, in which other programs count bytes.
MAX_SIZE = 2**63 - 1
# A text in quotes, or what is left when it has no end.
_TEXT = Pattern(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)


class _Odd(ValueError):
    """What is JSON to some readers and not, or something else, to others."""


def parse_json(data, what, limit=MAX_DOCUMENT):
    """Parse bytes as a JSON object.

    Arguments:
        data: the bytes.
        what: how the error names them.
        limit: how many bytes there may be.

    Raises CorruptError for anything else, and for an object that is out of bounds, has a key twice, a number that
    is none, or text that UTF-8 cannot hold.
    """
    if len(data) > limit:
        raise CorruptError(f"{what} has {len(data)} bytes, more than the {limit} allowed")
    if _values(data) > MAX_VALUES:
        raise CorruptError(f"{what} has more than the {MAX_VALUES} values allowed")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_number, parse_int=_integer)
        if b"\\ud" in data or b"\\uD" in data:
            # Half of a pair is text to json, but cannot be written anywhere.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as err:
        raise CorruptError(f"{what} is not JSON: {_reason(err)}") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{what} is not a JSON object")
    return value


def _values(data):
    """Return how many values there are in a text of JSON at most."""
    def count(text):
        return text.count(b",") + text.count(b"{") + text.count(b"[")

    found = count(data)
    # Labels of images hold whole documents, each one a single text here.
    return found if found <= MAX_VALUES else count(_TEXT.sub(b"", data))


def _reason(err):
    if isinstance(err, UnicodeError):
        return "it has text that UTF-8 cannot hold"
    if isinstance(err, RecursionError):
        return "it is nested too deeply"
    return str(err).splitlines()[0]


def _object(pairs):
    value = dict(pairs)
    if len(value) != len(pairs):
        seen = set()
        twice = next(key for key, _entry in pairs if key in seen or seen.add(key))
        raise _Odd(f"the key {shown(twice)} is given twice")
    return value


def _no_number(text):
    raise _Odd(f"{text} is not a number")


def _integer(text):
    # A number of a million digits takes minutes.
    if len(text) > len(str(MAX_SIZE)) + 1:
        raise _Odd(f"a number of {len(text)} digits")
    return int(text)


def parse_size(value):
    """Return a number of bytes from parsed JSON or from a text of digits; None for what is none."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_SIZE)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SIZE:
        return None
    return value


def shown(text, most=80):
    """Return a text of others for a message: quoted, in ASCII, and of its characters the first ``most``."""
    return ascii(text[:most] + ("…" if len(text) > most else ""))


def dump_json(value):
    """Serialize to the bytes that get a digest: compact, in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
