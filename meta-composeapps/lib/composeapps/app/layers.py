# SPDX-License-Identifier: MIT
"""What a layer takes on a disk: its archive is unpacked in memory, piece by piece, and nothing of it kept.

Only the headers are looked at, so that a layer of any size and any number of files takes a few hundred
kilobytes.
"""

import importlib
import zlib

from composeapps.errors import CorruptError

BLOCK = 4096
_TAR = 512
_PIECE = 256 * 1024
# Go's reader, and so dockerd, takes no extended header above this.
_MAX_EXTENDED = 1024 * 1024
_REGULAR, _EXTENDED, _ONLY_HEADER, _SPARSE = b"\0" b"07", b"xgLKX", b"123456", b"S"
# Extended headers in a row for one entry.
_MAX_HEADERS = 16


class Unmeasurable(Exception):
    """Why a layer that dockerd may well take cannot be measured here."""


def measure(chunks, what):
    """Return (size, usage) in bytes of an unpacked layer.

    The first is the sum of the sizes of its files, the second the same rounded up to whole blocks with an
    inode's worth for each entry.

    Arguments:
        chunks: the layer's blob, compressed or not, as an iterable of bytes; read to its end.
        what: how errors name it.

    Raises CorruptError when it is no tar archive, Unmeasurable when it is compressed in a way that this
    Python does not know, and what reading raises.
    """
    reader, size, usage = _Reader(unpacked(chunks, what), what), 0, 0
    for kind, length in _entries(reader, what):
        size += length
        usage += -(-length // BLOCK) * BLOCK if kind in _REGULAR + _SPARSE and length else BLOCK
    # A digest is known to be right only at the end.
    reader.drain()
    return size, usage


def _entries(reader, what):
    """Yield (type, size of the file) of each entry."""
    extended, count = {}, 0
    while header := reader.take(_TAR, at_end=True):
        if header.count(0) == _TAR:
            return
        kind, length = header[156:157], _number(header[124:136], what)
        if not _is_header(header) or length < 0:
            raise CorruptError(f"{what} is not a readable layer: it is no tar archive")
        if kind in _EXTENDED:
            count += 1
            if length > _MAX_EXTENDED or count > _MAX_HEADERS:
                raise CorruptError(f"{what} is not a readable layer: dockerd takes no extended header like that of an "
                                   f"entry in it, {length} bytes")
            data = reader.take(length)
            reader.skip(-length % _TAR)
            if kind in b"xX":
                extended = _pax(data, what)
            continue
        length, real = extended.get(b"size", length), None
        if kind in _SPARSE:
            real = _number(header[483:495], what)
            more = header[482]
            while more:
                more = reader.take(_TAR)[504]
        if kind in _ONLY_HEADER:
            length = 0
        reader.skip(length + -length % _TAR)
        for name in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
            real = extended.get(name, real)
        yield kind, length if real is None else real
        extended, count = {}, 0


def _is_header(header):
    try:
        written = int(header[148:156].strip(b"\0 ") or b"0", 8)
    except ValueError:
        return False
    field = header[148:156]
    total = sum(header) - sum(field) + 8 * 32
    if written == total:
        return True
    # Old writers took bytes for signed.
    return written == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def _number(field, what):
    """Return a number of a header: octal digits, or binary with the first bit set."""
    if field[0] & 0x80:
        return -1 if field[0] & 0x40 else int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        raise CorruptError(f"{what} is not a readable layer: it is no tar archive") from None


def _pax(data, what):
    """Return {name: number} of the sizes in an extended header."""
    found, start = {}, 0
    while start < len(data):
        space = data.find(b" ", start, start + 9)
        digits = data[start:max(space, start)]
        if not digits.isdigit() or not start < start + int(digits) <= len(data):
            break
        name, _equals, value = data[space + 1:start + int(digits)].rstrip(b"\n").partition(b"=")
        if name in (b"size", b"GNU.sparse.realsize", b"GNU.sparse.size"):
            if not value.isdigit() or len(value) > 18:
                raise CorruptError(f"{what} is not a readable layer: a file of it has a size that is none")
            found[name] = int(value)
        start += int(digits)
    return found


class _Reader:
    """Takes from pieces of bytes what is asked for, and passes over the rest without joining them."""

    def __init__(self, pieces, what):
        self._pieces, self._what = iter(pieces), what
        self._piece, self._at = b"", 0

    def take(self, count, at_end=False):
        """Return ``count`` bytes, or b"" at the end where that is ``at_end``; raises CorruptError elsewhere."""
        found = self._piece[self._at:self._at + count]
        self._at += len(found)
        while len(found) < count:
            if not self._next():
                if at_end and not found:
                    return b""
                raise self._short()
            more = self._piece[:count - len(found)]
            self._at = len(more)
            found += more
        return found

    def skip(self, count):
        """Pass over ``count`` bytes."""
        while count > len(self._piece) - self._at:
            count -= len(self._piece) - self._at
            if not self._next():
                raise self._short()
        self._at += count

    def drain(self):
        """Read what is left."""
        while self._next():
            pass

    def _next(self):
        self._piece, self._at = next(self._pieces, b""), 0
        return bool(self._piece)

    def _short(self):
        return CorruptError(f"{self._what} is not a readable layer: it ends in the middle of an entry")


class _Gzip:
    """zlib's decompressor behind the interface that those of the other modules have."""

    def __init__(self):
        self._object = zlib.decompressobj(31)

    @property
    def eof(self):
        return self._object.eof

    @property
    def unused_data(self):
        return self._object.unused_data

    @property
    def needs_input(self):
        return not self._object.unconsumed_tail

    def decompress(self, data, most):
        return self._object.decompress(self._object.unconsumed_tail + data, most)


def _from_module(name, kind, module):
    """Return a function that makes a decompressor; not every Python has each: zstd came with 3.14."""
    def make():
        try:
            return getattr(importlib.import_module(module), kind)()
        except ImportError:
            raise Unmeasurable(f"it is compressed with {name}, which this Python does not read") from None

    return make


_COMPRESSIONS = (
    (b"\x1f\x8b", _Gzip), (b"BZh", _from_module("bzip2", "BZ2Decompressor", "bz2")),
    (b"\xfd7zXZ\0", _from_module("xz", "LZMADecompressor", "lzma")),
    (b"\x28\xb5\x2f\xfd", _from_module("zstd", "ZstdDecompressor", "compression.zstd")))
_LONGEST_MAGIC = 6


def unpacked(chunks, what):
    """Yield the content of a blob in pieces that are not empty, whatever it is compressed with.

    Arguments:
        chunks: the blob, in pieces.
        what: how the error names it.

    Raises CorruptError.
    """
    chunks, head = iter(chunks), b""
    while len(head) < _LONGEST_MAGIC and (chunk := next(chunks, b"")):
        head += chunk
    make = next((make for magic, make in _COMPRESSIONS if head.startswith(magic)), None)
    if make is None:
        if head:
            yield head
        yield from filter(None, chunks)
        return
    unpacker = make()
    while head:
        piece = _decompress(unpacker, head, what)
        while piece:
            yield piece
            more = not unpacker.eof and not unpacker.needs_input
            piece = _decompress(unpacker, b"", what) if more else b""
        # Several archives may follow each other, and zeros to fill a block.
        head = unpacker.unused_data.lstrip(b"\0") if unpacker.eof else b""
        while not head and (chunk := next(chunks, b"")):
            head = chunk.lstrip(b"\0") if unpacker.eof else chunk
        if head and unpacker.eof:
            unpacker = make()
    if not unpacker.eof:
        raise CorruptError(f"{what} is not a readable layer: it ends in the middle of its compressed data")


def _decompress(unpacker, data, what):
    try:
        return unpacker.decompress(data, _PIECE)
    except MemoryError:
        raise
    except Exception as err:
        # Each of the modules has an error of its own.
        raise CorruptError(f"{what} is not a readable layer: {err}") from None
