# SPDX-License-Identifier: MIT
"""The pattern language of ``.composeappignores``, which is that of ``.dockerignore``.

Patterns are anchored at the app's directory, unlike git's; ``*`` and ``?`` stay within a
path component, ``**`` crosses them, ``!`` takes back, the last match decides, and a pattern
that matches a directory covers what is in it. Format: Docker's build reference.
"""

import re


class IgnoreRules:
    """The rules of one file.

    Arguments:
        text: the file's content.
    """

    def __init__(self, text=""):
        self._rules = []
        for line in text.splitlines():
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            keep = pattern.startswith("!")
            parts = [part for part in pattern.removeprefix("!").strip().split("/") if part not in ("", ".")]
            if parts:
                self._rules.append((keep, re.compile(_regex("/".join(parts)))))

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
            if any(regex.fullmatch(prefix) for prefix in prefixes):
                ignored = not keep
        return ignored


def _regex(pattern):
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        elif char == "*":
            out, at = out + "[^/]*", at + 1
        elif char == "?":
            out, at = out + "[^/]", at + 1
        elif char == "[" and (end := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1:end]
            negated = inner.startswith("^")
            body = inner.removeprefix("^").replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            out, at = out + f"[{'^' if negated else ''}{body}]", end + 1
        elif char == "\\" and at + 1 < len(pattern):
            out, at = out + re.escape(pattern[at + 1]), at + 2
        else:
            out, at = out + re.escape(char), at + 1
    return out
