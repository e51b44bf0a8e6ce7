# SPDX-License-Identifier: MIT
"""A store, and what lies beside it, in one tar archive that is read where it is: on a stick whose file system knows no
links and no ":" in names.

The archive is gone through once, by its headers; a member is then read at its place. It is not compressed. What is read
is verified by who asks for it, as everything is that comes from outside.
"""

import hashlib
import io
from pathlib import Path

from composeapps import beneath
from composeapps.errors import CorruptError, NotFoundError
from composeapps.oci.documents import MAX_DOCUMENT
from composeapps.tarheader import HeaderError, read_header

# Members that an archive may have, and bytes of extended headers before one.
_MOST, _MOST_HEADERS = 200_000, 64 * 1024
_PIECE = 128 * 1024


class Archive:
    """The members of a tar archive, a file at ``path``, by their names.

    Raises CorruptError for another file, OSError for none.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._members = {}
        with beneath.open_regular(self.path) as stream:
            try:
                self._index(stream)
            except HeaderError as err:
                raise CorruptError(f"{path} is no tar archive, or a damaged one: {err}") from None

    def _index(self, stream):
        pad = 0
        while True:
            header, pad = read_header(stream.read, [], pad, _MOST_HEADERS)
            if header is None:
                return
            if len(self._members) >= _MOST:
                raise CorruptError(f"{self.path} has more than the {_MOST} members allowed")
            if header.type == b"0" and not header.sparse:
                # Of two members of a name the first counts.
                self._members.setdefault(_name(header.name), (stream.tell(), header.size))
            elif header.type == b"1" and _name(header.link) in self._members:
                self._members.setdefault(_name(header.name), self._members[_name(header.link)])
            stream.seek(header.stored, io.SEEK_CUR)

    def size_of(self, name):
        """Return a member's size in bytes, None for none."""
        return self._members.get(name, (0, None))[1]

    def open(self, name):
        """Return a binary file over a member. Raises KeyError when there is none, and OSError."""
        start, size = self._members[name]
        return io.BufferedReader(_Member(beneath.open_regular(self.path), start, size), _PIECE)


class TarStore:
    """The store below ``top`` in an Archive, with what a pull asks a store.store.Store for."""

    def __init__(self, archive, top):
        self._archive, self._top, self.root = archive, top, f"{archive.path}"

    def _name(self, digest):
        return f"{self._top}/blobs/sha256/{digest.partition(':')[2]}"

    def size_of(self, digest):
        """Return a blob's size in bytes, None when it is not there."""
        return self._archive.size_of(self._name(digest))

    def unverified(self, digest):
        """Return a binary file over a blob, whatever is in it; raises NotFoundError."""
        try:
            return self._archive.open(self._name(digest))
        except KeyError:
            raise NotFoundError(f"blob {digest} is not in {self.root}") from None
        except OSError as err:
            raise CorruptError(f"blob {digest} in {self.root} cannot be read: {err.strerror}") from None

    def chunks(self, digest, size=None):
        """Yield a blob's content, verified at its end; raises NotFoundError, CorruptError."""
        present = self.size_of(digest)
        with self.unverified(digest) as stream:
            if size is not None and present != size:
                raise CorruptError(f"blob {digest} in {self.root} has {present} bytes, not {size}")
            hasher = hashlib.sha256()
            try:
                while chunk := stream.read(_PIECE):
                    hasher.update(chunk)
                    yield chunk
            except OSError as err:
                raise CorruptError(f"blob {digest} in {self.root} cannot be read: {err.strerror}") from None
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise CorruptError(f"blob {digest} in {self.root} is not what its name says")

    def read(self, digest, size=None):
        """Return a small blob (bytes), verified."""
        if (self.size_of(digest) or 0) > MAX_DOCUMENT:
            raise CorruptError(f"blob {digest} in {self.root} has more than the {MAX_DOCUMENT} bytes allowed")
        return b"".join(self.chunks(digest, size))


class _Member(io.RawIOBase):
    """The bytes of one member; it ends where that does."""

    def __init__(self, stream, start, size):
        super().__init__()
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, view):
        self._stream.seek(self._start + self._at)
        count = self._stream.readinto(memoryview(view)[:max(min(len(view), self._size - self._at), 0)])
        self._at += count
        return count

    def close(self):
        self._stream.close()
        super().close()


def _name(raw):
    return raw.decode("utf-8", "replace").removeprefix("./")
