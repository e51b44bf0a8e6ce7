# SPDX-License-Identifier: MIT
"""Random inputs: what is right, changed in the ways that damage and malice change it."""

import contextlib
import copy
import json
import random

# What parsers stumble over: ends of ranges, other spellings, what means something to shells, paths and terminals.
TOKENS = [
    b"", b"\0", b"\n", b"\r\n", b" ", b"\t", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", "ſ".encode(),
    "ﬀ/٣".encode(),
    b"..", b"../", b"../../../../etc/passwd", b"/", b"//", b"./", b"~", b"-", b"--", b"=", b":", b"@", b"%",
    b"%2e%2e%2f",
    b"0", b"-1", b"1e3", b"1e999", b"0x10", b"0o17", b"1_000", b"9" * 19, b"9" * 5000, b"-0", b"NaN", b"Infinity",
    b".inf",
    b"null", b"true", b"yes", b"no", b"~", b"[]", b"{}", b'""', b"''", b"[", b"{", b"]", b"}", b'"', b"'", b"\\",
    b"\\ud800",
    b"$", b"${", b"${A}", b"${A:-${B}}", b"$$", b"`", b"*a", b"&a", b"<<: *a", b"!reset", b"!!python/object:os.system ",
    b"!!binary ", b"!!timestamp ", b"!!float ", b"!!set ", b"!!omap ", b"? ", b"- ", b"---\n", b"...\n", b"|\n",
    b">-\n",
    b"1234-56-78", b"2001-01-01T99:99:99Z", b"0o_", b"12:30:45", b"0b", b"\x1b[2J", b"\x07", "\u202e".encode(),
    b"sha256:" + b"0" * 64, b"sha256:", b"SHA256:" + b"A" * 64, b"sha512:" + b"0" * 128, b"linux/amd64", b"windows",
    b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 200 OK\r\n", b"Bearer realm=", b"Basic ",
]
VALUES = [
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, 1e308, "", " ", "\0", "a",
    "x" * 300, "..",
    "../x", "/etc", "\ud800", "é", "\u202e", "sha256:" + "0" * 64, "linux", [], {}, [None], [[]], [{}], {"": None},
    {"a": {}},
    "9" * 5000, ["a"] * 200,
]


def inputs(name, seeds, seed, first=0):
    """Yield (number, input) without end: the same for the same ``name`` and ``seed``, each number by itself.

    Arguments:
        seeds: right inputs, bytes, or functions that take a random.Random and return bytes.
    """
    number = first
    while True:
        yield number, make(name, seeds, seed, number)
        number += 1


def make(name, seeds, seed, number):
    """Return the input of a number."""
    draw = random.Random(f"{seed} {name} {number}")
    start = draw.choice(seeds)
    if callable(start):
        data = start(draw)
        return bytes_of(data, seeds, draw) if draw.random() < 0.2 else data
    if draw.random() < 0.5:
        # Not all seeds are JSON, and what was made too deep cannot be written.
        with contextlib.suppress(ValueError, RecursionError):
            data = json.dumps(values_of(json.loads(start), draw)).encode()
            return bytes_of(data, seeds, draw) if draw.random() < 0.2 else data
    return bytes_of(start, seeds, draw)


def bytes_of(data, seeds, draw):
    """Return ``data`` with one to eight changes of its bytes and lines."""
    for _ in range(min(1 + int(draw.expovariate(0.7)), 8)):
        data = draw.choice(_CHANGES)(data, seeds, draw)
        if len(data) > 1 << 18:
            data = data[:1 << 18]
    return data


def _span(data, draw, most=64):
    start = draw.randint(0, len(data))
    return start, min(len(data), start + draw.randint(0, most))


def _flip(data, _seeds, draw):
    if not data:
        return data
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1:]


def _token(data, _seeds, draw):
    start, end = _span(data, draw, 12)
    return data[:start] + draw.choice(TOKENS) + (data[start:] if draw.random() < 0.5 else data[end:])


def _drop(data, _seeds, draw):
    start, end = _span(data, draw)
    return data[:start] + data[end:]


def _repeat(data, _seeds, draw):
    start, end = _span(data, draw)
    return data[:end] + data[start:end] * draw.choice([1, 1, 2, 3, 20]) + data[end:]


def _long(data, _seeds, draw):
    """Long words without a break are what makes regular expressions slow."""
    start, end = _span(data, draw, 3)
    word = draw.choice([data[start:end] or b"a", draw.choice(TOKENS) or b"-", b"a", b"a.", b"-", b"a/", b"[", b"{",
                        b'"a",', b" "])
    return data[:start] + word * min(draw.choice([50, 2000, 30000]), (1 << 17) // max(len(word), 1)) + data[end:]


def _cut(data, _seeds, draw):
    at = draw.randint(0, len(data))
    return data[:at] if draw.random() < 0.7 else data[at:]


def _splice(data, seeds, draw):
    other = draw.choice(seeds)
    if callable(other):
        return data
    start, end = _span(other, draw, 400)
    at = draw.randint(0, len(data))
    return data[:at] + other[start:end] + data[at:]


def _lines(data, _seeds, draw):
    lines = data.split(b"\n")
    one, two = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(5)
    if kind == 0:
        lines[one], lines[two] = lines[two], lines[one]
    elif kind == 1:
        lines.insert(two, lines[one])
    elif kind == 2:
        del lines[one]
    elif kind == 3:
        lines[one] = b"  " + lines[one] if draw.random() < 0.5 else lines[one][2:]
    else:
        key, colon, _value = lines[one].partition(b":")
        lines[one] = key + colon + b" " + draw.choice(TOKENS)
    return b"\n".join(lines)


_CHANGES = [_flip, _token, _token, _drop, _repeat, _long, _cut, _splice, _lines, _lines]


# Characters of JSON that one value may grow to by being repeated.
_MOST = 1 << 20


def values_of(value, draw):
    """Return parsed JSON with one to four changes of its values."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 4)):
        places = list(_places(value))
        if not places:
            return draw.choice(VALUES)
        if len(places) > 2000:
            break
        holder, key = draw.choice(places)
        kind = draw.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            times = draw.choice([1, 2, 150])
            holder[key] = [holder[key]] * (times if len(json.dumps(holder[key])) * times < _MOST else 1)
        elif kind == 2:
            holder[key] = _deep(holder[key], draw)
        elif kind == 3:
            other, there = draw.choice(places)
            with_other = copy.deepcopy(holder[key])
            if (isinstance(other, dict) or there < len(other)) and len(json.dumps(value)) < _MOST:
                other[there] = with_other
        elif kind == 4 and isinstance(holder, dict):
            new = draw.choice(TOKENS).decode(errors="replace")[:500]
            holder[new] = holder.pop(key)
        elif kind == 5 and isinstance(holder[key], str) and holder[key]:
            holder[key] = bytes_of(holder[key].encode(errors="replace"), [b""], draw).decode(errors="replace")
        else:
            holder[key] = copy.deepcopy(draw.choice(VALUES))
    return value


def _deep(value, draw):
    for _ in range(draw.choice([1, 5, 150])):
        value = [value] if draw.random() < 0.5 else {"a": value}
    return value


def _places(value):
    """Yield (holder, key or index) of all values."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
