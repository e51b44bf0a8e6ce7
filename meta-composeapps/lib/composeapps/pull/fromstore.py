# SPDX-License-Identifier: MIT
"""Another store, or any directory with ``blobs/sha256`` in it, in the place of a registry: a USB stick, for example."""

import os
from pathlib import Path

from composeapps.errors import CorruptError, UsageError
from composeapps.store.store import Store


class StoreClient:
    """Gives what a RegistryClient gives a pull, from a Store.

    Arguments:
        root: the store's directory.
        store: in its place, what lies elsewhere: a tarstore.TarStore.

    Raises UsageError when that is none. Methods raise NotFoundError, CorruptError and StorageError.
    """

    # What is damaged here costs no network each time: see registry.client.
    is_remote = False

    def __init__(self, root, store=None):
        self.store, self.notify = store or Store(Path(root).absolute()), lambda text: None
        if store is None and not self.store.blobs.is_dir():
            raise UsageError(f"{root} is no store: it has no directory blobs/sha256")

    def twin(self):
        """Return what another thread may use."""
        return self

    def close(self):
        """Close nothing: each blob's file is closed by who opened it."""

    abort = close

    def manifest(self, ref, digest):
        """Return a manifest or an index (bytes), verified."""
        return self.store.read(digest)

    def read_blob(self, ref, digest, size):
        """Return a small blob (bytes), verified."""
        return self.store.read(digest, size)

    def blob(self, ref, digest, size=None):
        """Yield a blob's content, verified at its end."""
        return self.store.chunks(digest, size)

    def open_blob(self, ref, digest, start=0, direct=False, size=None):
        """Return (what its bytes are gathered from, ``start``); who gathers them verifies them."""
        stream = self.store.unverified(digest)
        # A store may have a manifest elsewhere than among its blobs.
        present = self.store.size_of(digest)
        if present is None:
            present = os.fstat(stream.fileno()).st_size
        if present != size:
            stream.close()
            raise CorruptError(f"blob {digest} in {self.store.root} has {present} bytes, not {size}")
        stream.seek(start)
        return _Body(stream, present - start), start

    def next_pause(self, failure, failures):
        """Raise what went wrong: a second look at the same medium brings nothing."""
        raise CorruptError(f"{failure}: {self.store.root} cannot be read")


class _Body:
    """The bytes of an open file, as those of a response; ``length`` is how many are still to come."""

    def __init__(self, stream, length):
        self._stream, self.length = stream, length

    def gather(self, view):
        """Fill a buffer as far as there are bytes; return how many."""
        total = 0
        while total < len(view) and (count := self._stream.readinto(view[total:])):
            total += count
        self.length -= total
        return total

    def close(self):
        """Close the file."""
        self._stream.close()
