# SPDX-License-Identifier: MIT
"""Reading a compose file's text into values, as docker compose (go-yaml v3) reads it.

JSON, which ``publish`` writes, is read without PyYAML. YAML is read event by event straight into values, so
that what multiplies by its aliases is counted before it is made, and every refusal names its line.
"""

import json
import math
from typing import NamedTuple

from composeapps.app import scalars
from composeapps.errors import ComposeAppsError, UsageError

RESET, OVERRIDE = "!reset", "!override"
# More than any compose file has; what is read takes at most some tens of megabytes.
MAX_TEXT = 1024 * 1024
MAX_VALUES = 150_000
MAX_CHARACTERS = 4 * 1024 * 1024
MAX_DEPTH = 100

_YAML = "tag:yaml.org,2002:"
_MERGE = object()


class Tagged(NamedTuple):
    """A value that has one of docker compose's own tags, RESET or OVERRIDE."""

    tag: str
    value: object
    line: int


def read(data, what, source=False):
    """Return the values of the documents in a text (bytes), a list.

    Arguments:
        data: the text, JSON or YAML.
        what: how errors name it.
        source: it is to be published. Values with docker compose's own tags come as Tagged, and what docker
            compose does not hand on as it stands, a date or an infinite number, is refused. Otherwise such
            tags are done as docker compose does them in a file of its own.

    Raises UsageError, with the line where there is one, and ComposeAppsError where YAML cannot be read at all.
    """
    if len(data) > MAX_TEXT:
        raise UsageError(f"{what} has {len(data)} bytes, more than the {MAX_TEXT} allowed")
    if data[:1] == b"{":
        try:
            return [_json(data.decode())]
        except (ValueError, RecursionError):
            # YAML too may begin so; and what is neither is told by the reader that knows lines.
            pass
    return _documents(data, what, source)


def plain(value, what):
    """Return a value in which nothing is Tagged; raises UsageError naming the tag."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Tagged):
            raise UsageError(f"{what}, line {each.line}: {each.tag} cannot be kept here: write what it leads to")
        if isinstance(each, (dict, list)):
            waiting += each.values() if isinstance(each, dict) else each
    return value


def _json(text):
    def pairs(items):
        value = dict(items)
        if len(value) != len(items):
            raise ValueError("a key stands twice")
        return value

    def word(text):
        raise ValueError(f"{text} is no JSON")

    value = json.loads(text, object_pairs_hook=pairs, parse_int=scalars.resolve, parse_float=scalars.resolve,
                       parse_constant=word)
    if "\\u" in text:
        # Halves of a character are no text.
        json.dumps(value, ensure_ascii=False).encode()
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [entry for each in level for entry in (each.values() if isinstance(each, dict) else each)
                 if isinstance(entry, (dict, list))]
        if not level:
            return value
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _documents(data, what, source):
    try:
        import yaml
    except ImportError:
        # Nothing is wrong with the file, so nobody may take it for a bad or a damaged one.
        raise ComposeAppsError(f"{what} is YAML, and PyYAML is not installed: install python3-pyyaml") from None

    reader = _Reader(what, source)
    try:
        return reader.documents(yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{what}{line}: not YAML: {err.problem or err.context}") from None
    except yaml.reader.ReaderError as err:
        line = data[:err.position].count(b"\n") + 1 if isinstance(err.position, int) else 1
        raise UsageError(f"{what}, line {line}: not YAML: {err.reason}") from None
    except (yaml.YAMLError, UnicodeError) as err:
        raise UsageError(f"{what}: not YAML: {str(err).splitlines()[0]}") from None


class _Open:
    """A mapping or a list that is being read, with what it has taken so far."""

    def __init__(self, event, is_mapping, before):
        self.anchor, self.tag, self.line = event.anchor, event.tag, event.start_mark.line + 1
        self.value = {} if is_mapping else []
        self.is_mapping, self.before = is_mapping, before
        self.lines, self.merges, self.key, self.depth = {}, None, None, 1


class _Anchored(NamedTuple):
    """What an anchor names: how many values and characters it has, and how deep they are nested."""

    value: object
    values: int
    characters: int
    depth: int


class _Reader:
    """Makes values of events."""

    def __init__(self, what, source):
        self._what, self._source = what, source
        self._values = self._characters = self._aliased = 0
        self._anchors, self._stack, self._root = {}, [], None

    def documents(self, events):
        """Return the documents' values, a list."""
        from yaml import events as kinds

        found = []
        for event in events:
            if isinstance(event, kinds.ScalarEvent):
                self._take(event, self._scalar(event), 1, len(event.value))
            elif isinstance(event, (kinds.MappingStartEvent, kinds.SequenceStartEvent)):
                self._open(event, isinstance(event, kinds.MappingStartEvent))
            elif isinstance(event, (kinds.MappingEndEvent, kinds.SequenceEndEvent)):
                self._close(event)
            elif isinstance(event, kinds.AliasEvent):
                self._alias(event)
            elif isinstance(event, kinds.DocumentStartEvent):
                self._anchors, self._root = {}, None
            elif isinstance(event, kinds.DocumentEndEvent):
                found.append(self._root)
        if self._values > 1000 and self._aliased > 0.99 * self._values:
            # Where go-yaml draws its line.
            raise UsageError(f"{self._what}: nearly all of it are aliases, which docker compose refuses")
        return found

    def _fail(self, line, text):
        raise UsageError(f"{self._what}, line {line}: {text}")

    def _count(self, line, values, characters):
        self._values += values
        self._characters += characters
        if self._values > MAX_VALUES or self._characters > MAX_CHARACTERS:
            self._fail(line, f"more than {MAX_VALUES} values or {MAX_CHARACTERS} characters up to here, "
                             "with what aliases stand for")

    def _check_depth(self, line, more):
        if len(self._stack) + more > MAX_DEPTH:
            self._fail(line, f"nested more than {MAX_DEPTH} deep")

    def _scalar(self, event):
        text, tag, line = event.value, event.tag, event.start_mark.line + 1
        plain = not event.style
        if (plain and text == "<<" and tag in (None, "!")) or tag == f"{_YAML}merge":
            return _MERGE
        if tag in (None, "!"):
            if not plain:
                return text
            value = scalars.resolve(text)
            if self._source:
                self._check_handed_on(value, text, line)
            return value
        kind = tag.removeprefix(_YAML)
        if kind == "binary":
            return self._binary(text, line)
        if kind not in ("null", "bool", "int", "float", "timestamp"):
            # Of a tag that it does not know, go-yaml takes the text.
            value = text if tag != RESET and tag != OVERRIDE else scalars.resolve(text) if plain else text
            return self._tagged(tag, value, line)
        value = scalars.resolve(text)
        if kind == "float" and type(value) is int:
            value = float(value)
        if kind == "timestamp" and scalars.is_time(text):
            if self._source:
                self._check_handed_on(value, text, line)
            return value
        if type(value) is not {"null": type(None), "bool": bool, "int": int, "float": float}.get(kind):
            self._fail(line, f"'{text}' is no !!{kind}")
        return value

    def _check_handed_on(self, value, text, line):
        if isinstance(value, float) and not math.isfinite(value):
            self._fail(line, f"docker compose takes no {text}: put it in quotes if it is a text")
        if value is text and text[:1].isdigit() and scalars.is_time(text):
            self._fail(line, f"docker compose takes {text} for a time and writes it in another way: put it in quotes")

    def _binary(self, text, line):
        import base64

        try:
            return base64.b64decode("".join(text.split()), validate=True).decode()
        except ValueError:
            return self._fail(line, "a !!binary that is no text in base64")

    def _tagged(self, tag, value, line):
        if tag in (RESET, OVERRIDE) and (self._source or tag == RESET):
            return Tagged(tag, value, line)
        return value

    def _open(self, event, is_mapping):
        self._check_depth(event.start_mark.line + 1, 1)
        self._stack.append(_Open(event, is_mapping, (self._values, self._characters)))
        self._count(self._stack[-1].line, 1, 0)
        if event.anchor:
            # Known from here on, so that an alias in it is told from one of nothing.
            self._anchors[event.anchor] = None

    def _close(self, event):
        done = self._stack.pop()
        value = done.value
        if done.is_mapping:
            for key, entry in [] if done.merges is None else self._merged(done):
                value.setdefault(key, entry)
            for key in [key for key, entry in value.items() if isinstance(entry, Tagged)] if not self._source else ():
                del value[key]
        elif not self._source:
            value = [entry for entry in value if not isinstance(entry, Tagged)]
        values, characters = done.before
        value = self._tagged(done.tag, value, done.line)
        self._store(done.anchor, value, self._values - values, self._characters - characters, done.depth)
        self._place(value, done.line, done.depth)

    def _merged(self, done):
        merges, line = done.merges
        for value in merges if isinstance(merges, list) else [merges]:
            if not isinstance(value, dict):
                self._fail(line, "'<<' takes a mapping or a list of mappings")
            yield from value.items()

    def _take(self, event, value, values, characters):
        line = event.start_mark.line + 1
        self._count(line, values, characters)
        if event.anchor:
            self._store(event.anchor, "<<" if value is _MERGE else value, values, characters, 0)
        self._place(value, line, 0)

    def _store(self, anchor, value, values, characters, depth):
        if anchor:
            self._anchors[anchor] = _Anchored(value, values, characters, depth)

    def _alias(self, event):
        line = event.start_mark.line + 1
        if event.anchor not in self._anchors:
            self._fail(line, f"the alias '*{event.anchor}' stands for nothing")
        known = self._anchors[event.anchor]
        if known is None:
            self._fail(line, f"the alias '*{event.anchor}' stands for something that it is in itself")
        self._count(line, known.values, known.characters)
        self._check_depth(line, known.depth)
        self._aliased += known.values
        self._place(copied(known.value), line, known.depth)

    def _place(self, value, line, depth):
        """Put a value where it belongs: at the top, in the list, as a key or as a key's value."""
        if not self._stack:
            self._root = "<<" if value is _MERGE else value
            return
        into = self._stack[-1]
        into.depth = max(into.depth, depth + 1)
        if not into.is_mapping:
            into.value.append("<<" if value is _MERGE else value)
        elif into.key is None:
            if value is not _MERGE and not isinstance(value, str):
                shown = "a mapping or a list" if isinstance(value, (dict, list, Tagged)) else json.dumps(value)
                self._fail(line, f"a key has to be a text, and this is {shown}: put it in quotes")
            name = "<<" if value is _MERGE else value
            if name in into.lines:
                self._fail(line, f"the key '{name}' was given at line {into.lines[name]} already")
            into.lines[name] = line
            into.key = value
        else:
            key, into.key = into.key, None
            if key is _MERGE:
                into.merges = ("<<" if value is _MERGE else value, line)
            else:
                into.value[key] = "<<" if value is _MERGE else value


def copied(value):
    """Return a copy of a value: what is made of one must not show in the other."""
    if isinstance(value, dict):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [copied(entry) for entry in value]
    if isinstance(value, Tagged):
        return value._replace(value=copied(value.value))
    return value
