# SPDX-License-Identifier: MIT
"""Downloading blobs into partials, several at a time, each until it is whole or hopeless."""

import contextlib
import queue
import threading
import time

from composeapps.errors import CorruptError, NotFoundError, StorageError
from composeapps.registry.failures import TRANSIENT, Unavailable, reason
from composeapps.registry.ratelimit import RateLimit
from composeapps.store import damaged, partial

# Bytes that all connections together may have read and not written: what a kill costs at most, with what
# the kernel holds (see transport.Transport) of the same size again.
IN_FLIGHT = 512 * 1024
LEAST, MOST = 16 * 1024, 256 * 1024
# A try that brings fewer bytes than this brings nothing.
LEAST_PROGRESS = 3000
# How often a registry may say that it has no more than what is there already, and less than the blob.
MOST_RESTARTS = 2


class _Stopped(Exception):
    """Another download failed, or the user interrupts."""


def chunk_size(parallel):
    """Return how many bytes each of ``parallel`` connections reads at a time, and its kernel holds back."""
    return max(LEAST, min(MOST, IN_FLIGHT // parallel))


class Fetcher:
    """Fetches blobs into a store.

    Arguments:
        store: the Store; the caller holds the agent's lock.
        client: the RegistryClient whose twins do the work.
        progress: a progress.Progress.
        app: the name of the app that the blobs are for.
        parallel: how many blobs are fetched at a time.
        bandwidth: bytes a second of all together, 0 for no limit.
        received: {digest: bytes} that the progress was told to be there already.
    """

    def __init__(self, store, client, progress, app, parallel=1, bandwidth=0, received=None):
        self._store, self._client, self._progress, self._app = store, client, progress, app
        self._parallel = parallel
        self._stop = threading.Event()
        self._limit = RateLimit(bandwidth, self._wait)
        self._chunk = chunk_size(parallel)
        self._received = received or {}
        self._clients = []
        self._hold = {}
        self._disk = _Disk()

    def run(self, blobs, documents=()):
        """Fetch blobs; raises what the first one that fails fails with, after the others were stopped.

        Arguments:
            blobs: app.Blobs, fetched in this order.
            documents: (Blob, bytes) that were read already and are to be written.
        """
        waiting, ended = queue.SimpleQueue(), queue.SimpleQueue()
        for blob in blobs:
            if self._client.is_remote:
                damaged.check(self._store, blob.descriptor.digest, _name(blob))
            waiting.put(blob)
        self._clients = [self._client.twin() for _ in range(min(self._parallel, len(blobs)))]
        workers = [threading.Thread(target=self._work, args=(client, waiting, ended), name="fetch")
                   for client in self._clients]
        try:
            with self._disk:
                for blob, data in documents:
                    self._disk.write(blob.descriptor, data, self._store, self._progress)
                for worker in workers:
                    worker.start()
                try:
                    for _ in workers:
                        if failure := ended.get():
                            raise failure
                    self._disk.finish()
                finally:
                    self._stop.set()
                    for client in self._clients:
                        client.abort()
                    for worker in workers:
                        if worker.ident:
                            worker.join()
        finally:
            for client in self._clients:
                client.close()

    def _work(self, client, waiting, ended):
        """Fetch blobs until none waits; then say in ``ended`` what went wrong, or None."""
        failure = None
        try:
            while not self._stop.is_set():
                self._fetch(client, waiting.get_nowait())
        except (queue.Empty, _Stopped):
            pass
        except BaseException as err:
            failure = err
        ended.put(failure)

    def _wait(self, seconds):
        if self._stop.wait(seconds):
            raise _Stopped

    def _fetch(self, client, blob):
        digest, size = blob.descriptor.digest, blob.descriptor.size
        part = partial.Partial(self._store, digest, size, self._app)
        self._disk.opened(part)
        self._progress.advance(digest, part.received - self._received.get(digest, 0))
        what = _name(blob)
        try:
            for direct in (False, True):
                problem = "arrived with the wrong content"
                try:
                    self._complete(client, blob, part, what, direct)
                except CorruptError as err:
                    problem = str(err).removeprefix(what).strip()
                else:
                    if part.matches():
                        self._disk.finished(part, lambda: self._finished(digest))
                        return
                    self._progress.advance(digest, -part.restart())
                if client.is_remote:
                    damaged.note(self._store, digest)
                self._progress.note(f"{what} {problem}")
            raise CorruptError(f"{what} {problem} twice: the registry's copy is damaged, "
                               "or something on the way changes it")
        except NotFoundError:
            if not blob.optional:
                raise
            part.close()
            # One that is there is damaged, or it would not be fetched.
            self._store.blob_path(digest).unlink(missing_ok=True)
            self._progress.note(f"{what} is not in the registry; it is not needed")
            self._progress.done(digest)
        except BaseException:
            self._disk.closed(part)
            raise

    def _finished(self, digest):
        damaged.forget(self._store, digest)
        self._progress.done(digest)

    def _complete(self, client, blob, part, what, direct):
        """Fetch until a partial has as many bytes as the blob; raises CorruptError when the registry has others."""
        failures = restarts = 0
        while part.received < part.size:
            before = part.received
            try:
                self._wait(max(self._hold.get(blob.ref.host, 0) - time.monotonic(), 0))
                response, offset = client.open_blob(blob.ref, part.digest, before, direct, part.size)
                if offset is None:
                    self._progress.advance(part.digest, -part.restart())
                    restarts += 1
                    if restarts > MOST_RESTARTS:
                        raise CorruptError(f"{what} has fewer bytes in the registry than its descriptor says")
                    continue
                with contextlib.closing(response):
                    self._receive(response, before - offset, part)
                if part.received == part.size:
                    return
                failure = Unavailable(f"{what}: the connection ended after {part.received} bytes",
                                      "the connection ended early", reached=True)
            except Unavailable as err:
                failure = err
                if err.after:
                    # All of the connections are meant, not this one.
                    self._hold[blob.ref.host] = time.monotonic() + client.patience.pause(1, err.after)
            except (OSError, *TRANSIENT) as err:
                failure = Unavailable(f"{what}: {reason(err)}", reason(err), reached=True)
            if self._stop.is_set():
                raise _Stopped
            failures = failures + 1 if part.received - before < LEAST_PROGRESS else 1
            seconds = client.next_pause(failure, failures)
            self._progress.retry(part.digest, failure.problem or str(failure), seconds)
            self._wait(seconds)

    def _receive(self, response, skip, part):
        """Read a response into the partial, past the first ``skip`` bytes, until the blob or the response ends."""
        buffer = memoryview(bytearray(self._chunk))
        while part.received < part.size:
            if self._stop.is_set():
                raise _Stopped
            wanted = self._limit.take(min(self._chunk, skip or part.size - part.received))
            count = response.gather(buffer[:wanted])
            self._limit.give_back(wanted - count)
            if not count:
                return
            if skip:
                skip -= count
                continue
            part.append(buffer[:count])
            self._progress.advance(part.digest, count)
            if part.is_due():
                self._disk.sync(part)
        if response.length is None:
            # Takes note that nothing follows, so that the connection can be used again.
            response.drain()


def _name(blob):
    return f"blob {blob.descriptor.digest} of {blob.ref.repository}"


class _Disk:
    """Syncs partials and makes blobs of those that are whole, in a thread of its own beside the downloads."""

    def __init__(self):
        self._jobs = queue.SimpleQueue()
        self._open, self._lock = set(), threading.Lock()
        self._failure = None
        self._thread = threading.Thread(target=self._run, name="disk")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exc):
        self._jobs.put(None)
        self._thread.join()
        for part in list(self._open):
            part.close()

    def opened(self, part):
        with self._lock:
            self._open.add(part)

    def closed(self, part):
        """Nobody writes to the partial any more."""
        self._jobs.put((part, part.close, None))

    def sync(self, part):
        """Have a partial synced; raises what went wrong with one before."""
        self._raise()
        self._jobs.put((part, part.sync, None))

    def finished(self, part, then):
        """Have a partial made a blob, and ``then`` called."""
        self._raise()
        self._jobs.put((part, part.finish, then))

    def write(self, descriptor, data, store, progress):
        """Have a blob written whose content (bytes) is known."""
        digest = descriptor.digest
        self._jobs.put((None, lambda: store.add_blob(digest, [data], descriptor.size), lambda: progress.done(digest)))

    def finish(self):
        """Wait until all is done; raises what went wrong."""
        self._jobs.put(None)
        self._thread.join()
        self._raise()

    def _raise(self):
        if self._failure:
            raise self._failure

    def _run(self):
        while job := self._jobs.get():
            part, action, then = job
            try:
                action()
                if then:
                    then()
            except Exception as err:
                # Whatever it was, the blob is not in the store.
                self._failure = self._failure or err
            if part is not None and action != part.sync:
                with self._lock:
                    self._open.discard(part)


def fetch_blobs(store, client, progress, app, blobs, documents=(), **options):
    """Fetch app.Blobs into the store, the largest first, and write ``documents``, pairs of a Blob and its bytes.

    The other arguments are those of ``Fetcher``.
    """
    fetcher = Fetcher(store, client, progress, app, **options)
    try:
        fetcher.run(sorted(blobs, key=lambda blob: -blob.descriptor.size), documents)
    except StorageError:
        partial.make_room(store, [blob.descriptor.digest for blob in blobs])
        raise
