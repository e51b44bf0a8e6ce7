# SPDX-License-Identifier: MIT
"""The repository's pages as a reader sees them: headings with anchors, links, fenced blocks with marks."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

TOP = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"<!--\s*(.*?)\s*-->\s*$")


class Block(NamedTuple):
    """A fenced block: the language behind the fence, its text, its line, and the marks of the comment before it."""

    language: str
    text: str
    line: int
    marks: tuple


class Link(NamedTuple):
    """A link: where it leads, as written, and its line."""

    target: str
    line: int


def anchor_of(heading, taken=()):
    """Return the anchor that a forge gives to ``heading``: GitHub's rule, with a number where it is ``taken``."""
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
    name, number = text, 0
    while name in taken:
        number += 1
        name = f"{text}-{number}"
    return name


class Page:
    """One Markdown file.

    ``path`` is the file, ``text`` its content; ``anchors`` maps each heading's anchor to its line, in order;
    ``words`` is the prose, (text, line, where the link leads that it is in, or None), without headings and code.
    """

    def __init__(self, path):
        self.path = Path(path).resolve()
        self.text = self.path.read_text(encoding="utf-8")
        self._lines = self.text.splitlines()
        tokens = MarkdownIt("commonmark").enable("table").parse(self.text)
        self.anchors, self.links, self.blocks, self.words = {}, [], [], []
        self._levels = {}
        previous = None
        for index, token in enumerate(tokens):
            line = token.map[0] + 1 if token.map else 0
            if token.type == "heading_open":
                anchor = anchor_of(_plain(tokens[index + 1]), self.anchors)
                self.anchors[anchor], self._levels[anchor] = line, int(token.tag[1])
            elif token.type == "inline":
                self.links += [Link(child.attrs["href"], line) for child in token.children
                               if child.type == "link_open"]
                if previous.type != "heading_open":
                    self.words += _prose(token.children, line)
            elif token.type in ("fence", "code_block"):
                marks = ()
                if previous is not None and previous.type == "html_block":
                    found = _MARK.search(previous.content.strip())
                    marks = tuple(part.strip() for part in found[1].split(";")) if found else ()
                self.blocks.append(Block(token.info.strip(), token.content, line, marks))
            previous = token

    def section(self, anchor):
        """Return the text below a heading, up to the next one of its level or above; of "" the whole page."""
        if not anchor:
            return self.text
        start, level = self.anchors[anchor], self._levels[anchor]
        ends = [line for other, line in self.anchors.items() if line > start and self._levels[other] <= level]
        return "\n".join(self._lines[start - 1:min(ends, default=len(self._lines) + 1) - 1])

    def resolve(self, target):
        """Return (file, anchor) of a link inside of the repository, None for one that leads out of it."""
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            return None
        path = (self.path.parent / unquote(parts.path)).resolve() if parts.path else self.path
        return path, unquote(parts.fragment)


def _plain(inline):
    return "".join(child.content for child in inline.children if child.type in ("text", "code_inline"))


def _prose(children, line):
    target = None
    for child in children:
        if child.type == "link_open":
            target = child.attrs["href"]
        elif child.type == "link_close":
            target = None
        elif child.type == "text":
            yield child.content, line, target


@cache
def page(path):
    """Return the Page of a file, read once."""
    return Page(path)


def clicks(start):
    """Return {page: how many links one follows from ``start`` to it}, over all Markdown files that are linked."""
    found, queue = {Path(start).resolve(): 0}, [Path(start).resolve()]
    for path in queue:
        for link in page(path).links:
            place = page(path).resolve(link.target)
            if place and place[0].suffix == ".md" and place[0].is_file() and place[0] not in found:
                found[place[0]] = found[path] + 1
                queue.append(place[0])
    return found
