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
                self._rules.append((keep, re.compile(_regex(pattern), re.DOTALL)))
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
        for keep, regex in self._rules:
            # A rule that would change nothing need not be asked.
            if keep == ignored and any(regex.fullmatch(prefix) for prefix in prefixes):
                ignored = not keep
        return ignored


_STAR = "[^/]*"


def _regex(pattern):
    """Return a regular expression for a pattern; raises IndexError for one that ends too early."""
    # [wildcard, what follows it up to the next one].
    parts, at = [["", ""]], 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            begun = at
            while pattern.startswith("**", at):
                at += 3 if pattern.startswith("**/", at) else 2
            if at >= len(pattern):
                parts.append([".*", ""])
            elif begun == 0 and at == 2 and not re.search(r"[*?\\[\]]", pattern[at:]):
                # At the beginning and before plain text it stands for any characters.
                parts.append([".*", ""])
            else:
                parts.append(["(?:.*/)?", ""])
        elif char == "*":
            parts.append([_STAR, ""])
            at += 1
        elif char == "?":
            parts[-1][1] += "[^/]"
            at += 1
        elif char == "[":
            group, at = _group(pattern, at)
            parts[-1][1] += group
        elif char == "\\":
            parts[-1][1] += re.escape(pattern[at + 1])
            at += 2
        else:
            parts[-1][1] += re.escape(char)
            at += 1
    out = ""
    for number, (wildcard, text) in enumerate(parts):
        plain = "[" not in text.replace("[^/]", "").replace(r"\[", "")
        if wildcard == _STAR and plain and number + 1 < len(parts) and parts[number + 1][0] == _STAR:
            # The first place where the text is will do, since the next star takes what is left: no way back is tried.
            # Not so with a group, which may take a slash.
            out += f"(?=(?P<s{number}>{_STAR}?{text}))(?P=s{number})"
        else:
            out += wildcard + text
    return out


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
