# SPDX-License-Identifier: MIT
"""The pattern language of ``.composeappignores``, which is that of ``.dockerignore``.

Patterns are anchored at the app's directory, unlike git's; ``*`` and ``?`` stay within a path component,
``**`` crosses them, ``!`` takes back, the last match decides, and a pattern that matches a directory covers
what is in it. Format: Docker's build reference, and moby/patternmatcher where that leaves something open.
"""

import posixpath
import re

from composeapps.errors import UsageError


class IgnoreRules:
    """The rules of one file.

    Arguments:
        data: the file's content (bytes). What is no UTF-8 matches names that have the same bytes.
        what: how errors name the file.

    Raises UsageError, with the line, for a pattern that is none.
    """

    def __init__(self, data=b"", what="the ignore file"):
        self._rules = []
        text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
        for number, line in enumerate(text.split("\n"), 1):
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            keep = pattern.startswith("!")
            pattern = pattern.removeprefix("!").strip()
            if not pattern:
                raise UsageError(f"{what}, line {number}: '!' takes back nothing: give it a pattern")
            pattern = posixpath.normpath(pattern).lstrip("/").strip()
            if pattern in ("", "."):
                continue
            try:
                self._rules.append((keep, _matcher(_items(pattern))))
            except (re.error, IndexError):
                raise UsageError(f"{what}, line {number}: '{pattern}' is not a pattern: check its brackets and "
                                 "backslashes".encode(errors="backslashreplace").decode()) from None

    @property
    def has_exceptions(self):
        """Whether something inside an ignored directory may still be wanted."""
        return any(keep for keep, _ in self._rules)

    def ignores(self, path):
        """Tell whether the file or directory ``path`` (relative, with slashes) is left out."""
        parts = path.split("/")
        prefixes = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        ignored = False
        for keep, matches in self._rules:
            # A rule that would change nothing need not be asked.
            if keep == ignored and matches(path, prefixes):
                ignored = not keep
        return ignored


# What stands for any number of characters: within a component, anywhere, and for whole components.
_STAR, _ANY, _COMPONENTS = "[^/]*", ".*", "(?:.*/)?"
_WILD = (_STAR, _ANY, _COMPONENTS)
# With more of these a regular expression tries so many ways that it comes to no end.
_FEW = 2


def _matcher(items):
    """Return a function that tells of (path, its prefixes) whether a pattern matches one of these."""
    if sum(item in _WILD for item in items) > _FEW:
        return _Steps(items).matches
    fullmatch = re.compile("".join(items), re.DOTALL).fullmatch
    return lambda _path, prefixes: any(map(fullmatch, prefixes))


class _Steps:
    """A pattern that is followed on all its ways at once, character by character: in steps as many as the path has.

    Arguments:
        items: those of ``_items``.

    A set of places in the pattern is a number; its bit ``n`` stands for the place before item ``n``.
    """

    def __init__(self, items):
        self._kinds = {kind: sum(1 << at for at, item in enumerate(items) if item == kind) for kind in _WILD}
        self._wild, self._end, self._taken = sum(self._kinds.values()), 1 << len(items), {}
        self._single = {}
        for at, item in enumerate(items):
            if item not in _WILD:
                self._single[item] = self._single.get(item, 0) | 1 << at
        self._single = [(re.compile(item, re.DOTALL), places) for item, places in self._single.items()]

    def matches(self, path, _prefixes):
        """Tell whether the path, or a directory that leads there, matches."""
        places = self._reached(1)
        # Items for whole components that have begun.
        begun = places & self._kinds[_COMPONENTS]
        for char in path:
            new = (places & self._takers(char)) << 1 | places & self._kinds[_ANY]
            if char == "/":
                if places & self._end:
                    return True
                new |= begun << 1
            else:
                new |= places & self._kinds[_STAR]
            places = self._reached(new)
            begun |= places & self._kinds[_COMPONENTS]
        return bool(places & self._end)

    def _reached(self, places):
        """Return the places with those that are reached from there without a character."""
        while (more := places | (places & self._wild) << 1) != places:
            places = more
        return places

    def _takers(self, char):
        """Return the places of the items that take a character."""
        if char not in self._taken:
            self._taken[char] = sum(places for item, places in self._single if item.fullmatch(char))
        return self._taken[char]


def _items(pattern):
    """Return the regular expressions that make a pattern, each for one character or one of ``_WILD``.

    Raises IndexError for a pattern that ends too early.
    """
    items, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            begun = at
            while pattern.startswith("**", at):
                at += 3 if pattern.startswith("**/", at) else 2
            # At the beginning and before plain text it stands for any characters.
            whole = at < len(pattern) and not (begun == 0 and at == 2 and not re.search(r"[*?\\[\]]", pattern[at:]))
            items.append(_COMPONENTS if whole else _ANY)
        elif char == "*":
            items.append(_STAR)
            at += 1
        elif char == "?":
            items.append("[^/]")
            at += 1
        elif char == "[":
            group, at = _group(pattern, at)
            items.append(group)
        elif char == "\\":
            items.append(re.escape(pattern[at + 1]))
            at += 2
        else:
            items.append(re.escape(char))
            at += 1
    return items


def _group(pattern, at):
    """Return the regular expression for the character group that begins at ``at``, and where it ends."""
    out, at = "[", at + 1
    if pattern[at] == "^":
        out, at = "[^", at + 1
    begun = at
    while at == begun or pattern[at] != "]":
        first, at = _character(pattern, at)
        out += re.escape(first)
        if pattern[at] == "-":
            last, at = _character(pattern, at + 1)
            out += "-" + re.escape(last)
    return out + "]", at + 1


def _character(pattern, at):
    """Return a character of a group, and where the next begins; as Go has it, '-' and ']' need a backslash."""
    if pattern[at] == "\\":
        at += 1
    elif pattern[at] in "-]":
        raise IndexError(at)
    return pattern[at], at + 1
