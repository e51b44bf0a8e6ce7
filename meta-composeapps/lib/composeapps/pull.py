# SPDX-License-Identifier: MIT
"""Pulling an app from a registry into the store.

``survey`` finds out what an app consists of and what of it the store lacks, ``fetch`` gets that.
What is complete in the store needs no network.
"""

from dataclasses import dataclass, field

from composeapps.app import App, load_app
from composeapps.errors import CorruptError, NotFoundError
from composeapps.oci import MAX_DOCUMENT, host_platform
from composeapps.reference import Reference


@dataclass(frozen=True)
class Survey:
    """What a pull would do.

    ``app`` is the App with its documents read; ``missing`` are the app.Blobs that the store lacks or
    has in another size, ``size`` the sum of their bytes; ``documents`` maps digests to the bytes of
    those that were read from the registry already.
    """

    ref: Reference
    app: App
    missing: tuple
    size: int
    documents: dict = field(default_factory=dict, repr=False)


def survey(ref, store, client, platform=None, verify=False):
    """Find out what the store lacks of an app. Writes nothing.

    Arguments:
        ref: the app's pinned Reference.
        store: the Store.
        client: called without arguments for the RegistryClient when something has to be read from the
            registry.
        platform: the oci.Platform; this machine's by default.
        verify: read all blobs that the store has, and count the damaged ones as missing.

    Returns a Survey. Raises RegistryError, NotFoundError, CorruptError.
    """
    ref = ref.pinned(ref.digest)
    source = _Source(store, client)
    app = load_app(source, ref, [platform or host_platform()])
    missing = tuple(blob for blob in app.blobs() if _lacks(store, blob, source.documents, verify))
    if all(blob.optional for blob in missing) and store.has_app(ref):
        missing = ()
    return Survey(ref, app, missing, sum(blob.descriptor.size for blob in missing), source.documents)


def _lacks(store, blob, documents, verify):
    digest, size = blob.descriptor.digest, blob.descriptor.size
    if digest in documents or store.size_of(digest) != size:
        return True
    return verify and store.verify(digest, size) is not None


class _Source:
    """Reads an app's documents from the store where it has them whole, else from the registry."""

    def __init__(self, store, client):
        self._store, self._client = store, client
        self.documents = {}

    def document(self, ref, digest):
        """Return a manifest or an index (bytes), verified."""
        return self._read(digest, None, lambda: self._client().manifest(ref, digest))

    def blob(self, ref, digest, size):
        """Return a small blob (bytes), verified."""
        return self._read(digest, size, lambda: self._client().read_blob(ref, digest, size))

    def open(self, ref, digest, size):
        """Return a blob of any size as a binary file, verified."""
        import io

        return io.BytesIO(self._read(digest, size, lambda: b"".join(self._client().blob(ref, digest, size)), size))

    def _read(self, digest, size, fetch, limit=MAX_DOCUMENT):
        if digest not in self.documents:
            try:
                return self._store.read(digest, size, limit)
            except (NotFoundError, CorruptError):
                self.documents[digest] = fetch()
        return self.documents[digest]


def fetch(survey, store, client, progress, parallel=3, bandwidth=0):
    """Get what a Survey found missing, then make the app visible in the store.

    Arguments:
        survey: the Survey.
        store: the Store; the caller holds the agent's lock.
        client: called without arguments for the RegistryClient, as for ``survey``.
        progress: a progress.Progress.
        parallel: how many blobs are fetched at a time.
        bandwidth: bytes a second that all of them may take together, 0 for no limit.

    Returns the App. What was fetched before it failed is used by the next call. Raises RegistryError,
    CorruptError, NotFoundError, StorageError.
    """
    blobs = sorted(survey.missing, key=lambda blob: -blob.descriptor.size)
    progress.expect(blobs)
    for blob in blobs:
        digest, size = blob.descriptor.digest, blob.descriptor.size
        try:
            if digest in survey.documents:
                chunks = [survey.documents[digest]]
            elif blob.kind == "manifests":
                chunks = [client().manifest(blob.ref, digest)]
            else:
                chunks = client().blob(blob.ref, digest, size)
            store.add_blob(digest, chunks, size)
        except NotFoundError:
            if not blob.optional:
                raise
        progress.done(digest)
    store.add_app(survey.app)
    return survey.app


def registry_client(config, environ=None):
    """Return a RegistryClient made from a Config and the environment."""
    from composeapps.registry import RegistryClient

    return RegistryClient(environ=environ)
