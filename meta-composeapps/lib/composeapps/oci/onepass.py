# SPDX-License-Identifier: MIT
"""Reading a blob once: what is made of it counts when the digest of these very bytes was right.

Reading it first for its digest and then for its content takes twice as long, and somebody may write to it in between.
"""

from composeapps.errors import ComposeAppsError


class Forward:
    """A binary file that can only be read forwards.

    Arguments:
        chunks: yields bytes, and raises at the end when they are not what they should be.

    ``failure`` is the error that they raised, None before.
    """

    def __init__(self, chunks):
        self._chunks, self._piece, self._at, self.failure = iter(chunks), b"", 0, None

    def read(self, size):
        """Return up to so many bytes, b"" only at the end; raises what the chunks' source raises."""
        while self._at == len(self._piece):
            try:
                piece = next(self._chunks, None)
            except Exception as err:
                self.failure = err
                raise
            if piece is None:
                return b""
            self._piece, self._at = piece, 0
        piece = self._piece if not self._at and len(self._piece) <= size else self._piece[self._at:self._at + size]
        self._at += len(piece)
        return piece

    def drain(self):
        """Read on to the end; raises what the chunks' source raises."""
        self._piece, self._at = b"", 0
        for _chunk in self._chunks:
            pass


def parsed(chunks, parse):
    """Return what a function makes of a blob.

    Arguments:
        chunks: the blob's content, from a generator that raises at its end when the digest is wrong.
        parse: called with a Forward. What it gets is not verified yet, so it changes nothing and bounds what it takes.

    Raises what ``chunks`` raises, and only for a blob that is what its name says what ``parse`` raises.
    """
    found, unfit = result(chunks, parse)
    if unfit is not None:
        raise unfit
    return found


def result(chunks, parse):
    """Return (what ``parse`` makes of a blob, None), or (None, its ComposeAppsError, of a blob that is whole).

    Arguments and other errors are those of ``parsed``.
    """
    stream, found, unfit = Forward(chunks), None, None
    try:
        found = parse(stream)
    except ComposeAppsError as err:
        if err is stream.failure:
            raise
        unfit = err
    stream.drain()
    return found, unfit
