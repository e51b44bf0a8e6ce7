# SPDX-License-Identifier: MIT
"""What somebody would read on a web page, for a terminal."""

from html.parser import HTMLParser

_BLOCKS = {"article", "br", "div", "footer", "h1", "h2", "h3", "header", "li", "main", "p", "pre", "section", "tr"}
_UNSEEN = {"head", "script", "style", "title"}


def lines(page):
    """Return the text of a page as lines, without those that are empty; ``page`` is HTML or plain text."""
    if "<" not in page:
        return page.strip().splitlines()
    reader = _Reader()
    reader.feed(page)
    reader.close()
    found = (" ".join(line.split()) for line in "".join(reader.pieces).split("\0"))
    return [line for line in found if line]


class _Reader(HTMLParser):
    """Collects the ``pieces`` of text that are seen, with a NUL where a block begins or ends."""

    def __init__(self):
        super().__init__()
        self.pieces, self._unseen = [], 0

    def handle_starttag(self, tag, _attributes):
        self._unseen += tag in _UNSEEN
        if tag in _BLOCKS:
            self.pieces.append("\0")

    def handle_endtag(self, tag):
        self._unseen -= tag in _UNSEEN
        if tag in _BLOCKS:
            self.pieces.append("\0")

    def handle_data(self, text):
        if self._unseen <= 0:
            self.pieces.append(text)
