# SPDX-License-Identifier: MIT
"""Partial downloads: ``<store>/ingest/<hex>.part``, by digest, whoever wants the blob.

What such a file holds is never trusted. Whoever goes on with it reads all of it into the hash
first, and the whole must have the digest in the end.

A process that is killed loses nothing: what it wrote is in the page cache. A power cut may
leave a file whose end was never written, as zeros or as old data. So the file is synced every few
megabytes or seconds, and how far goes into ``<hex>.mark`` together with the boot's ID: in another boot, a
partial is cut back to its mark. No mark is ahead of the data that it vouches for; an old one, or a
damaged one, only means that more is fetched again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

from composeapps import beneath, durable
from composeapps.errors import LockedError, StorageError
from composeapps.store import damaged, held

SUFFIX, MARK_SUFFIX = ".part", ".mark"
# Bytes, or seconds while some come, after which a partial is synced: what a power cut costs at most.
SYNC_EVERY, SYNC_SECONDS = 16 * 1024 * 1024, 2
# Seconds for which a partial that an app still wants is kept untouched.
KEEP_SECONDS = 7 * 24 * 3600
_READ = 1024 * 1024


def boot_id():
    """Return what tells this boot of the machine from every other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Partial:
    """A blob on its way into the store.

    Arguments:
        store: the Store.
        digest, size: the blob's; the size in bytes.
        app: the name of the app that wants it.

    ``received`` counts the bytes that are there. The lock on the file keeps two processes from
    writing to one. Methods raise StorageError when the file system refuses, LockedError when another
    process has it.
    """

    def __init__(self, store, digest, size, app):
        self._store, self.digest, self.size, self._app = store, digest, size, app
        self._path = path_of(store, digest)
        self._mark = self._path.with_suffix(MARK_SUFFIX)
        self._synced = 0
        with self._storage():
            store.make_private()
            durable.make_way(self._path, store.root)
            self._file = open(self._path, "a+b", buffering=0)  # noqa: SIM115 - until finish or close
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._take_over()
            except BlockingIOError:
                self._file.close()
                raise LockedError(f"another process fetches blob {digest}: wait for it, or stop it") from None
            except BaseException:
                self._file.close()
                raise

    def _storage(self):
        return durable.storage_errors(f"writing blob {self.digest}")

    def _take_over(self):
        """Find out what of the file counts, and hash that."""
        length = os.fstat(self._file.fileno()).st_size
        if length > self.size:
            length = 0
        if length:
            mark = _read_mark(self._mark)
            self._synced = min(length, mark.get("synced", 0))
            if mark.get("boot") != boot_id():
                length = self._synced
        self._file.truncate(length)
        self._hash, self.received = hashlib.sha256(), 0
        self._file.seek(0)
        while self.received < length and (data := self._file.read(min(_READ, length - self.received))):
            self._hash.update(data)
            self.received += len(data)
        self._requested = self.received, time.monotonic()
        self._write_mark()

    def append(self, data):
        """Write the next bytes (any buffer)."""
        with self._storage():
            view = memoryview(data)
            while view:
                # A full disk takes a part before it refuses.
                written = self._file.write(view)
                self._hash.update(view[:written])
                self.received += written
                view = view[written:]

    def restart(self):
        """Throw away what is there; return how many bytes that were."""
        with self._storage():
            thrown = self.received
            self._file.truncate(0)
            self._hash, self.received, self._synced = hashlib.sha256(), 0, 0
            self._requested = 0, time.monotonic()
            self._write_mark()
            return thrown

    def is_due(self):
        """Tell whether it is time for ``sync``; once only, whoever is told sees to it."""
        received, then = self._requested
        now = time.monotonic()
        if self.received - received < SYNC_EVERY and (self.received == received or now - then < SYNC_SECONDS):
            return False
        self._requested = self.received, now
        return True

    def matches(self):
        """Tell whether what is there is the whole blob."""
        return self.received == self.size and "sha256:" + self._hash.hexdigest() == self.digest

    def sync(self):
        """Make what is there durable and remember that; another thread may go on writing."""
        with self._storage():
            first, received = not self._synced, self.received
            os.fdatasync(self._file.fileno())
            if first:
                durable.fsync_directory(self._path.parent)
            self._synced = min(max(self._synced, received), self.received)
            self._write_mark(durably=True)

    def finish(self):
        """Turn the partial, which ``matches``, into a blob of the store."""
        with self._storage():
            os.fchmod(self._file.fileno(), 0o644)
            os.fsync(self._file.fileno())
            self._store.give_name(self._path, self._store.blob_path(self.digest))
            held.hold(self._store, self.digest)
            self._mark.unlink(missing_ok=True)
        self._file.close()

    def close(self):
        """Leave the partial for whoever goes on with it; one without any bytes goes."""
        if not self._file.closed:
            if not self.received:
                self.remove()
            self._file.close()

    def remove(self):
        """Remove the partial."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._mark.unlink(missing_ok=True)

    def _write_mark(self, durably=False):
        """Write the mark in place, in less than a sector: it is whole, the old one or no mark at all."""
        value = json.dumps({"boot": boot_id(), "synced": self._synced, "app": self._app}).encode()
        descriptor = os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(descriptor, value, 0)
            os.ftruncate(descriptor, len(value))
            if durably:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def path_of(store, digest):
    """Return where the partial of a blob lies."""
    return store.ingest / (store.blob_path(digest).name + SUFFIX)


def received(store, digest):
    """Return how many bytes of a blob a partial has, without a look at them."""
    try:
        return path_of(store, digest).stat().st_size
    except OSError:
        return 0


def _read_mark(path):
    try:
        value = json.loads(beneath.read_regular(path))
        return {"boot": str(value["boot"]), "synced": max(int(value["synced"]), 0), "app": str(value["app"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def collect(store, wanted, app="", everything=False):
    """Remove the partials that nobody wants any more.

    These are: a blob's that is in the store meanwhile; one that app ``app`` began and this version of
    it does not want; one that was not touched for a week, by the clock. Those of other apps stay for
    whoever goes on with them.

    Arguments:
        store: the Store; the caller holds the agent's lock.
        wanted: the digests that are wanted now; their partials stay in any case.
        app: the name of the app that is fetched.
        everything: remove all partials that are not wanted now.

    Returns (how many, bytes).
    """
    keep = {store.blob_path(digest).name for digest in wanted}
    count = size = 0
    for path in store.ingest.glob("*" + SUFFIX):
        if path.stem in keep:
            continue
        with contextlib.suppress(OSError):
            status = path.stat()
            age = time.time() - status.st_mtime
            mark = _read_mark(path.with_suffix(MARK_SUFFIX))
            if (everything or not mark or (app and mark["app"] == app) or age > KEEP_SECONDS
                    or (store.blobs / path.stem).exists()):
                path.unlink()
                path.with_suffix(MARK_SUFFIX).unlink(missing_ok=True)
                count, size = count + 1, size + status.st_size
    for mark in store.ingest.glob("*" + MARK_SUFFIX):
        if not mark.with_suffix(SUFFIX).exists():
            mark.unlink(missing_ok=True)
    damaged.collect(store, KEEP_SECONDS)
    held.collect(store, KEEP_SECONDS)
    return count, size


def make_room(store, digests, share=0.02, at_most=64 * 1024 * 1024):
    """Remove partials after the disk has filled up, the smallest first, until a little is free again.

    A device whose disk is full to the last byte cannot do much about it; what is left of the partials is
    used by the next pull.

    Arguments:
        store: the Store; the caller holds the agent's lock.
        digests: those whose partials may go.
        share, at_most: how much of the file system is to be free, and how many bytes that is at most.
    """
    with contextlib.suppress(OSError, StorageError):
        for path in sorted((path_of(store, digest) for digest in digests), key=_size):
            status = os.statvfs(store.ingest)
            if status.f_bavail * status.f_frsize >= min(status.f_blocks * status.f_frsize * share, at_most):
                break
            path.unlink(missing_ok=True)
            path.with_suffix(MARK_SUFFIX).unlink(missing_ok=True)


def _size(path):
    try:
        return path.stat().st_size
    except OSError:
        return 0
