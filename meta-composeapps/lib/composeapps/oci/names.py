# SPDX-License-Identifier: MIT
"""Names of apps.

An app's name is the path of its repository without the first component, so it has the grammar of a
repository's path: lower-case components, separated by "/". It is a value and no path: it never names
".", "..", a hidden or an absolute file. Whatever comes in from outside, a command line, a directory's
listing, a file, becomes an ``AppName`` before anything is done with it.
"""

import functools
from urllib.parse import quote, unquote

from composeapps.errors import UsageError
from composeapps.patterns import Pattern

# With this much a name still fits into names of files and labels that are made of it.
MAX_NAME = 200
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = Pattern(f"{COMPONENT}(?:/{COMPONENT})*")
# In the store, such a directory is a version of the app whose name leads there.
_DIGEST = Pattern("[0-9a-f]{64}")
# A command asks for the few names that a device has again and again: what is found out about them is kept.


class AppName(str):
    """An app's name, which equals its text.

    Arguments:
        text: the name.
        what: how the error names what it came from.

    Raises UsageError for what is no name.
    """

    __slots__ = ()

    def __new__(cls, text, what="app"):
        if isinstance(text, cls):
            return text
        problem = _problem(text)
        if problem:
            shown = ascii(str(text)[:80])
            raise UsageError(f"{what} {shown} cannot be: {problem}")
        return super().__new__(cls, text)

    @property
    def components(self):
        """The components, a tuple of texts that each are the name of a file."""
        return tuple(self.split("/"))

    @property
    def file_stem(self):
        """One component that stands for the whole name, for files that the agent keeps of the app."""
        return _quoted(self)

    def below(self, root):
        """Return the Path of the app's directory below ``root`` (a Path)."""
        return _below(root, self)

    def holds(self, other):
        """Tell whether the directory of the app ``other`` lies in this one's."""
        return other != self and other.startswith(f"{self}/")


@functools.lru_cache(maxsize=512)
def _below(root, name):
    return root.joinpath(*name.components)


@functools.lru_cache(maxsize=512)
def _quoted(name):
    return quote(name, safe="")


@functools.lru_cache(maxsize=512)
def from_file_stem(text):
    """Return the AppName that a file's name stands for, None for a file of another kind."""
    try:
        name = AppName(unquote(text))
    except UsageError:
        return None
    return name if name.file_stem == text else None


def is_name(text):
    """Tell whether a text is an app's name."""
    return _problem(text) is None


def _problem(text):
    if not isinstance(text, str) or not text:
        return "an app's name is not empty"
    return _problem_of(str(text))


@functools.lru_cache(maxsize=512)
def _problem_of(text):
    if len(quote(text[:MAX_NAME + 1], safe="", errors="replace")) > MAX_NAME:
        return f"an app's name has at most {MAX_NAME} characters"
    if not _NAME.fullmatch(text):
        return "an app's name is of lower-case letters and digits, with single '.', '_', '-' and '/' in between"
    if any(_DIGEST.fullmatch(part) for part in text.split("/")):
        return "no part of an app's name is a digest"
    return None
