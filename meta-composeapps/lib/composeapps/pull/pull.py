# SPDX-License-Identifier: MIT
"""Pulling an app from a registry into the store.

``survey`` finds out what an app consists of and what of it the store lacks, ``fetch`` gets that.
What is complete in the store needs no network.
"""

import contextlib
import os
from types import MappingProxyType
from typing import NamedTuple

from composeapps.app.tree import CHECKED, App, Blob, load_app
from composeapps.errors import CorruptError, NotFoundError, SpaceError
from composeapps.oci.documents import MAX_DOCUMENT, Descriptor
from composeapps.oci.onepass import parsed, result
from composeapps.oci.platforms import host_platform
from composeapps.oci.reference import Reference
from composeapps.pull.progress import Progress
from composeapps.store import held, partial

# Seconds of silence after which a connection to a registry counts as dead.
SILENCE = 30
# How many tries in a row may bring nothing, some two minutes of them.
TRIES = 10


class Survey(NamedTuple):
    """What a pull would do.

    ``app`` is the App with its documents read; ``missing`` are the app.Blobs that the store lacks or
    has in another size, ``size`` the sum of their bytes; ``documents`` maps digests to the bytes of
    those that were read from the registry already. ``verified`` are the digests of those that the store has and
    that were read whole.
    """

    ref: Reference
    app: App
    missing: tuple
    size: int
    documents: dict = MappingProxyType({})
    verified: frozenset = frozenset()


def survey(ref, store, client, platform=None, verify=False, keep=False, reading=CHECKED):
    """Find out what the store lacks of an app. Writes nothing, but for ``keep``.

    Arguments:
        ref: the app's pinned Reference.
        store: the Store.
        client: called without arguments for the RegistryClient when something has to be read from the
            registry.
        platform: the oci.Platform; this machine's by default.
        verify: read all blobs that the store has, and count the damaged ones as missing.
        keep: the caller holds the agent's lock and is going to fetch: a bundle of more than 4 MiB, which
            has to be read for the images that it names, goes into the store at once.
        reading: WHOLE for an app whose bundle's ``contents`` are wanted, too, as ``load_app`` has it.

    Returns a Survey. Raises RegistryError, NotFoundError, CorruptError.
    """
    ref = ref.pinned(ref.digest)
    source = _Source(store, client, keep)
    return _surveyed(load_app(source, ref, [platform or host_platform()], reading=reading), store, source, verify, keep)


def verified(found, store, client, keep=False):
    """Return a Survey that counts as missing what the store has damaged, too; nothing is read a second time for it.

    Arguments:
        found: the Survey that was made without. The others and the errors are those of ``survey``.
    """
    source = _Source(store, client, keep)
    source.documents.update(found.documents)
    source.verified.update(found.verified)
    return _surveyed(found.app, store, source, True, keep)


def _surveyed(app, store, source, verify, keep):
    ref, missing = app.ref, _missing(store, app.blobs(), source.documents, verify, source.verified)
    if keep:
        missing = tuple(blob for blob in missing if not _taken_back(store, blob, source.documents))
    if store.has_app(ref) and all(blob.optional and store.size_of(blob.descriptor.digest) is None for blob in missing):
        # The registry had nothing else when the app was fetched.
        missing = ()
    elif app.layers_meta in [blob.descriptor for blob in missing]:
        # What the layers take on the disk has to be known before they are fetched.
        with contextlib.suppress(NotFoundError):
            source.blob(ref, app.layers_meta.digest, app.layers_meta.size)
    return Survey(ref, app, missing, sum(blob.descriptor.size for blob in missing), source.documents,
                  frozenset(source.verified))


def _missing(store, blobs, documents, verify, known=()):
    """Return those of ``blobs`` that the store lacks, in order.

    Those that ``documents`` has were read elsewhere, the digests ``known`` are of those that were verified just now.
    """
    blobs = tuple(blobs)
    there = {blob.descriptor.digest: blob.descriptor.size for blob in blobs
             if blob.descriptor.digest not in documents
             and store.size_of(blob.descriptor.digest) == blob.descriptor.size}
    unread = {digest: size for digest, size in there.items() if digest not in known} if verify else {}
    damaged = {digest for digest, problem in store.verify_all(unread).items() if problem is not None}
    whole = there.keys() - damaged
    return tuple(blob for blob in blobs if blob.descriptor.digest not in whole)


def _taken_back(store, blob, documents):
    return blob.descriptor.digest not in documents and held.take_back(
        store, blob.descriptor.digest, blob.descriptor.size)


class _Source:
    """Reads an app's documents from the store where it has them whole, else from the registry."""

    def __init__(self, store, client, keep):
        self._store, self._client, self._keep = store, client, keep
        self.documents, self.verified = {}, set()

    def present(self, digest):
        """Tell whether the store has a manifest, whole or not."""
        return self._store.size_of(digest) is not None

    def document(self, ref, digest):
        """Return a manifest or an index (bytes), verified."""
        return self._read(digest, None, lambda: self._client().manifest(ref, digest))

    def blob(self, ref, digest, size):
        """Return a small blob (bytes), verified."""
        return self._read(digest, size, lambda: self._client().read_blob(ref, digest, size))

    def parse(self, ref, digest, size, parse):
        """Return what ``parse`` makes of a blob of any size, read once and verified: see ``onepass.parsed``."""
        if size <= MAX_DOCUMENT:
            return parsed([self.blob(ref, digest, size)], parse)
        try:
            found, unfit = result(self._store.chunks(digest, size), parse)
            self.verified.add(digest)
        except (NotFoundError, CorruptError):
            found, unfit = self._fetched(ref, digest, size, parse)
        if unfit is not None:
            raise unfit
        return found

    def _fetched(self, ref, digest, size, parse):
        if not self._keep:
            return result(self._client().blob(ref, digest, size), parse)
        from composeapps.pull.fetching import fetch_blobs

        where = self._store.root
        while not where.is_dir():
            where = where.parent
        status = os.statvfs(where)
        free = status.f_bavail * status.f_frsize + partial.received(self._store, digest)
        if free <= size:
            raise SpaceError(f"the bundle of {ref} has {size} bytes, and {where} has room for {free}: free space")
        wanted = Blob(ref, "blobs", Descriptor(digest, size))
        fetch_blobs(self._store, self._client(), Progress(), ref.app_name, [wanted])
        found = result(self._store.chunks(digest, size), parse)
        self.verified.add(digest)
        return found

    def _read(self, digest, size, fetch):
        if digest not in self.documents:
            try:
                data = self._store.read(digest, size)
                self.verified.add(digest)
                return data
            except (NotFoundError, CorruptError):
                self.documents[digest] = fetch()
        return self.documents[digest]


def fetch(survey, store, client, progress, parallel=3, bandwidth=0, settling=contextlib.nullcontext,
          without=frozenset()):
    """Get what a Survey found missing, then make the app visible in the store.

    Arguments:
        survey: the Survey.
        store: the Store; the caller holds the lock of downloads, or the agent's.
        client: called without arguments for the RegistryClient, as for ``survey``.
        progress: a progress.Progress.
        parallel: how many blobs are fetched at a time.
        bandwidth: bytes a second that all of them may take together, 0 for no limit.
        settling: called without arguments for a context in which nobody removes blobs from the store.
        without: digests of layers that the store is not to have: whoever takes the app from there has them.

    Returns the App. What was fetched before it failed is used by the next call. Raises RegistryError,
    CorruptError, NotFoundError, StorageError.
    """
    from composeapps.pull.fetching import fetch_blobs

    store.remove_stale()
    missing = tuple(blob for blob in survey.missing if blob.descriptor.digest not in without)
    while True:
        digests = [blob.descriptor.digest for blob in missing]
        partial.collect(store, digests, survey.ref.app_name)
        received = {digest: partial.received(store, digest) for digest in digests}
        progress.expect(missing, received)
        documents = {**survey.documents, **_manifests(survey.documents, missing, store, client)}
        known = [(blob, documents[blob.descriptor.digest]) for blob in missing if blob.descriptor.digest in documents]
        waiting = [blob for blob in missing if blob.descriptor.digest not in documents]
        if waiting or known:
            fetch_blobs(store, client() if waiting else None, progress, survey.ref.app_name, waiting, known,
                        parallel=parallel, bandwidth=bandwidth, received=received)
        with settling():
            # What was there when it was surveyed may have been removed since.
            missing = _missing(store, [blob for blob in survey.app.blobs() if not blob.optional
                                       and blob.descriptor.digest not in without], (), verify=False)
            if not missing:
                store.add_app(survey.app)
                for blob in survey.app.blobs():
                    held.release(store, blob.descriptor.digest)
                return survey.app


def _manifests(known, missing, store, client):
    """Return {digest: bytes} of the manifests among ``missing`` that are not ``known``: no registry has them as blobs.

    The store may have one elsewhere than among its blobs.
    """
    found = {}
    for blob in missing:
        digest, size = blob.descriptor.digest, blob.descriptor.size
        if blob.kind == "manifests" and digest not in known:
            try:
                found[digest] = store.read(digest, size)
            except (NotFoundError, CorruptError):
                found[digest] = client().manifest(blob.ref, digest)
    return found


def registry_client(config, environ=None, endpoints=None, place=None):
    """Return a RegistryClient made from a Config and the environment, as patient as a device has to be.

    Arguments:
        config: the device's Config.
        environ: the environment; this process's by default.
        endpoints: {registry host: base URL} in place of what the environment says.
        place: where blobs come from whatever their registry, see composeapps.registry.settings.Registries.
    """
    from composeapps.pull.fetching import chunk_size
    from composeapps.registry.client import RegistryClient
    from composeapps.registry.credentials import Credentials
    from composeapps.registry.patience import Patience

    environ = os.environ if environ is None else environ
    return RegistryClient(
        endpoints, credentials=Credentials(environ=environ, settings=config.registries), timeout=SILENCE,
        environ=environ, settings=config.registries, patience=Patience(tries=TRIES, stubborn=True),
        receive_buffer=chunk_size(config.parallel), place=place)
