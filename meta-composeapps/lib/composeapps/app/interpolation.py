# SPDX-License-Identifier: MIT
"""Variables in compose files and in ``.env`` files, replaced as docker compose does it.

The grammar is that of the Compose Specification, "Interpolation": ``$NAME``, ``${NAME}``, ``${NAME:-default}``,
``${NAME-default}``, ``${NAME:?error}``, ``${NAME?error}``, ``${NAME:+other}``, ``${NAME+other}``, nested,
and ``$$`` for a dollar sign. No input takes more than linear time in what it is and what it becomes.
"""

from collections import ChainMap

from composeapps.patterns import Pattern

# The longest text that may come of one, in characters: each variable may be made of several others.
LONGEST = 256 * 1024
# The same of all values of a file together.
LARGEST = 4 * LONGEST
_DEPTH = 20
_NAME = Pattern(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = Pattern(r"[A-Za-z0-9_.\-\[\]]+")
_PLAIN = Pattern(r"[^$}]+")
_STOPS = {"'": Pattern(r"['\\]"), '"': Pattern(r'["\\]')}
_BLANK = " \t\v\f"
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def substitute(text, environment):
    """Return a text with its variables replaced.

    Arguments:
        text: the text.
        environment: {variable: value}.

    A variable that is not set is empty. Raises ValueError with a phrase for what docker compose refuses.
    """
    if "$" not in text:
        return text
    return _Template(text, environment).read()


def replaced(value, environment):
    """Return a value of a compose file as text with its variables replaced, or as it is where that cannot be done."""
    try:
        return substitute(str(value), environment)
    except ValueError:
        return str(value)


class _Template:
    def __init__(self, text, environment):
        self._text, self._environment, self._at, self._length = text, environment, 0, 0

    def read(self):
        return self._until_end(0, False)

    def _until_end(self, depth, inner):
        """Return what stands here up to the end, of ``inner`` parts the brace that closes them."""
        parts, text = [], self._text
        while self._at < len(text):
            sign = text[self._at]
            if sign == "}" and inner:
                return "".join(parts)
            if sign == "$":
                parts.append(self._variable(depth))
            elif sign == "}":
                parts.append(sign)
                self._at += 1
            else:
                plain = _PLAIN.match(text, self._at)
                parts.append(plain[0])
                self._at = plain.end()
            self._length += len(parts[-1])
            if self._length > LONGEST:
                raise ValueError("it becomes too long")
        if inner:
            raise ValueError("a '${' is not closed")
        return "".join(parts)

    def _variable(self, depth):
        text, at = self._text, self._at + 1
        if text.startswith("$", at):
            self._at = at + 1
            return "$"
        braced = text.startswith("{", at)
        name = _NAME.match(text, at + braced)
        if name is None and not braced:
            self._at = at
            return "$"
        if name is None:
            raise ValueError("a '${' is followed by no name ('$$' is a dollar sign)")
        value, self._at = self._environment.get(name[0]), name.end()
        if not braced:
            return value or ""
        if depth >= _DEPTH:
            raise ValueError("variables are nested too deeply")
        colon = text.startswith(":", self._at)
        operator = text[self._at + colon:self._at + colon + 1]
        if operator == "}" and not colon:
            self._at += 1
            return value or ""
        if operator not in ("-", "?", "+") or not operator:
            raise ValueError(f"'${{{name[0]}' is not closed")
        self._at += colon + 1
        other = self._until_end(depth + 1, True)
        self._at += 1
        there = bool(value) if colon else value is not None
        if operator == "+":
            return other if there else ""
        if there:
            return value
        if operator == "?":
            raise ValueError(f"variable {name[0]} is required: {other}")
        return other


def parse_environment(text, given=None):
    """Read a ``.env`` file as docker compose does.

    Arguments:
        text: its text.
        given: variables from elsewhere, which go before those of the file in its values.

    Returns {variable: value}, with variables replaced. Raises ValueError with a phrase that names the line.
    """
    found, at, total, text = {}, 0, 0, text.removeprefix("\ufeff").replace("\r\n", "\n")
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "#":
            at = _line_end(text, at)
        else:
            begin = at
            try:
                at, length = _assignment(text, at, found, ChainMap(given or {}, found))
            except ValueError as err:
                number = text.count("\n", 0, begin) + 1
                raise ValueError(f"line {number}: {err}") from None
            total += length
            if total > LARGEST:
                raise ValueError("its values become too long")
    return found


def _assignment(text, at, found, known):
    """Read an assignment into ``found``; return (where it ends, the length of the value)."""
    if text.startswith("export", at) and text[at + 6:at + 7] in tuple(_BLANK):
        at = _skip(text, at + 6)
    key = _KEY.match(text, at)
    if key is None:
        raise ValueError("no name of a variable stands here")
    at = _skip(text, key.end())
    if at == len(text) or text[at] == "\n":
        # A variable without a value is handed on from elsewhere.
        if key[0] in known:
            found[key[0]] = known[key[0]]
        return at, len(known.get(key[0], ""))
    if text[at] not in "=:":
        raise ValueError(f"'{key[0][:40]}' is no assignment")
    at = _skip(text, at + 1)
    value, at, literal = _value(text, at)
    found[key[0]] = value if literal else substitute(value, known)
    return at, len(found[key[0]])


def _value(text, at):
    """Return (value, where it ends, whether its dollar signs are just that)."""
    quote = text[at:at + 1]
    if quote not in ("'", '"') or not quote:
        end = _line_end(text, at)
        return text[at:end].partition(" #")[0].rstrip(), end, False
    parts, begin, position = [], at, at + 1
    while True:
        found = _STOPS[quote].search(text, position)
        if found is None:
            raise ValueError(f"a {quote} is not closed: {text[begin:begin + 40]!r}")
        stop = found.start()
        parts.append(text[position:stop])
        if text[stop] == quote:
            return "".join(parts), stop + 1, quote == "'"
        following = text[stop + 1:stop + 2]
        if quote == "'":
            parts.append("'" if following == "'" else "\\" + following)
        elif following == "$":
            parts.append("$$")
        else:
            parts.append(_ESCAPES.get(following, following if following in ('"', "\\") else "\\" + following))
        position = stop + 2


def _skip(text, at):
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _line_end(text, at):
    end = text.find("\n", at)
    return len(text) if end < 0 else end
