# SPDX-License-Identifier: MIT
"""The tar in a layer's blob: gzip, zstd (where Python has it) or not compressed at all."""

import hashlib
import importlib
import zlib

from composeapps.errors import CorruptError

_INPUT = 64 * 1024
_OUTPUT = 256 * 1024


class NotHealableError(CorruptError):
    """A layer cannot be healed from the blob at hand; nothing, or nothing that was whole, was changed."""


class TarStream:
    """Reads the tar in a blob from its beginning.

    Arguments:
        blob: a binary file that can be rewound.
        tick: called with the number of bytes after each piece of tar.

    Raises NotHealableError for a compression that cannot be read here, or a damaged blob.
    """

    def __init__(self, blob, tick=None):
        blob.seek(0)
        self._blob, self._tick = blob, tick
        self._piece, self._at = b"", 0
        self._hasher = hashlib.sha256()
        first = blob.read(_INPUT)
        if first.startswith(b"\x1f\x8b\x08"):
            self._pieces = self._inflated(first, lambda: zlib.decompressobj(31), zlib.error)
        elif first.startswith(b"\x28\xb5\x2f\xfd") or (first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5):
            self._pieces = self._zstd(first)
        elif first.startswith((b"BZh", b"\xfd7zXZ\0")):
            raise NotHealableError("the blob is compressed with bzip2 or xz, which no OCI layer is")
        else:
            self._pieces = self._plain(first)

    def read(self, count):
        """Return ``count`` bytes, or fewer at the end."""
        end = self._at + count
        if end <= len(self._piece):
            data = self._piece[self._at:end]
            self._at = end
            return data
        collected = [self._piece[self._at:]]
        missing = count - len(collected[0])
        while missing:
            self._piece, self._at = next(self._pieces, b""), 0
            if not self._piece:
                break
            self._hasher.update(self._piece)
            if self._tick:
                self._tick(len(self._piece))
            self._at = min(missing, len(self._piece))
            collected.append(self._piece[:self._at])
            missing -= self._at
        return b"".join(collected)

    def payload(self, count):
        """Yield ``count`` bytes in pieces; raises NotHealableError when there are fewer."""
        while count:
            data = self.read(min(count, _OUTPUT))
            if not data:
                raise NotHealableError("the blob's tar ends in the middle of a file")
            count -= len(data)
            yield data

    def drain(self):
        """Yield what is left, in pieces."""
        while data := self.read(_OUTPUT):
            yield data

    def diff_id(self):
        """Return "sha256:<hex>" of what was read so far; of the whole tar after ``drain``."""
        return "sha256:" + self._hasher.hexdigest()

    def _plain(self, data):
        while data:
            yield data
            data = self._blob.read(_INPUT)

    def _inflated(self, data, start, errors):
        while data:
            engine = start()
            while not engine.eof:
                data = data or self._blob.read(_INPUT)
                if not data:
                    raise NotHealableError("the blob is truncated")
                try:
                    piece = engine.decompress(data, _OUTPUT)
                except errors as err:
                    raise NotHealableError(f"the blob cannot be decompressed: {err}") from None
                if piece:
                    yield piece
                data = engine.unconsumed_tail
            data = engine.unused_data or self._blob.read(_INPUT)

    def _zstd(self, data):
        try:
            # In the standard library from Python 3.14.
            zstd = importlib.import_module("compression.zstd")
        except ImportError:
            raise NotHealableError("the blob is compressed with zstd, which this Python cannot read") from None

        class Engine:
            """A frame's decompressor with zlib's interface."""

            def __init__(self):
                self._engine = zstd.ZstdDecompressor()
                self.unconsumed_tail = b""

            eof = property(lambda self: self._engine.eof)
            unused_data = property(lambda self: self._engine.unused_data)

            def decompress(self, data, limit):
                piece = self._engine.decompress(data if self._engine.needs_input else b"", limit)
                # It keeps what it did not read; one byte stands for that, and is not passed on.
                self.unconsumed_tail = b"" if self._engine.needs_input or self._engine.eof else b"\0"
                return piece

        return self._inflated(data, Engine, zstd.ZstdError)
