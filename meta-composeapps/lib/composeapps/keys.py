# SPDX-License-Identifier: MIT
"""Keys of the configuration file as data: their names, what they take, and what the reference tells of them."""

from __future__ import annotations

from typing import NamedTuple

from composeapps.errors import UsageError


class Kind(NamedTuple):
    """What a key takes: ``type`` in words with their article, ``range`` in words ("" without one).

    ``check`` takes a value as TOML has it and returns it as the code wants it. It raises ValueError for others; with a
    text, which then follows the key's name in the sentence for the user.
    """

    type: str
    range: str
    check: object


class Key(NamedTuple):
    """One key: its ``section``, ``name``, the ``field`` that it sets, its Kind.

    ``text`` is its meaning, ``example`` a value as it stands in the file, ``unset`` what holds without it where the
    field's default does not tell that by itself.
    """

    section: str
    name: str
    field: str
    kind: Kind
    text: str
    example: str
    unset: str = ""


def checked(where, key, value):
    """Return a key's value as the code wants it.

    Arguments:
        where: how the error names file and section.
        key: the Key.
        value: the value as TOML has it.

    Raises UsageError naming file, key and what it takes.
    """
    try:
        return key.kind.check(value)
    except ValueError as err:
        wanted = " ".join(filter(None, (key.kind.type, key.kind.range)))
        raise UsageError(f"{where}: '{key.name}' {err.args[0] if err.args else f'is not {wanted}'}") from None


def number(least, greatest):
    """Return the Kind of whole numbers from ``least`` to ``greatest``."""
    def check(value):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= greatest:
            raise ValueError
        return value

    return Kind("a number", f"from {least} to {greatest}", check)


def _text(value):
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _path(value):
    from pathlib import Path

    text = _text(value)
    if not text.startswith("/"):
        raise ValueError
    return Path(text)


def _names(value):
    # LmP's spelling is a list in one text, and none at all when it is empty.
    if not isinstance(value, str):
        raise ValueError
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _words(value):
    if not isinstance(value, list) or not value:
        raise ValueError
    return tuple(_text(word) for word in value)


def _socket(value):
    if not _text(value).startswith("unix:///"):
        raise ValueError
    return value


def _flag(value):
    if not isinstance(value, bool):
        raise ValueError
    return value


def _tags(value):
    # They go into a header of a request, which has one line and the comma between them.
    found = _names(value)
    if any(not tag.isascii() or not tag.isprintable() or " " in tag for tag in found):
        raise ValueError
    return found


def _header_word(value):
    if not _text(value).isascii() or not value.isprintable() or value != value.strip() or "," in value:
        raise ValueError
    return value


def _https(value):
    text = _text(value)
    host = text.removeprefix("https://").partition("/")[0]
    if not text.startswith("https://") or not host or not text.isprintable() or set(text) & set("?# \\"):
        raise ValueError
    if "@" in host:
        raise ValueError("has a login in it: a device is known by its certificate")
    return text.rstrip("/")


def _window(value):
    """Return (begin, end) in minutes of the day."""
    begin, dash, end = _text(value).partition("-")
    found = []
    for each in (begin, end):
        hours, colon, minutes = each.strip().partition(":")
        if not dash or not colon or not (hours + minutes).isdecimal() or len(minutes) != 2 or len(hours) > 2 \
                or int(hours) > 23 or int(minutes) > 59:
            raise ValueError
        found.append(int(hours) * 60 + int(minutes))
    if found[0] == found[1]:
        raise ValueError("begins when it ends: leave it out for 'at any time'")
    return tuple(found)


TEXT = Kind("a text", "", _text)
PATH = Kind("an absolute path", "", _path)
NAMES = Kind("a text with the names of apps, separated by commas", "", _names)
WORDS = Kind("a list of words", "", _words)
SOCKET = Kind("the address of a socket,", "unix:///PATH", _socket)
FLAG = Kind("true or false", "", _flag)
TAGS = Kind("a text with tags, separated by commas", "", _tags)
WORD = Kind("a text", "without commas", _header_word)
HTTPS = Kind("an address", "https://HOST[:PORT][/PATH]", _https)
WINDOW = Kind("hours of the day,", "HH:MM-HH:MM", _window)
