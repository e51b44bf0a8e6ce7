# SPDX-License-Identifier: MIT
"""A client of OCI registries (distribution specification v1.1), stdlib-only.

Reads manifests and blobs by digest and checks each before handing it on; pushes them;
logs in with basic authentication or the bearer-token exchange; asks mirrors first. A
transfer that breaks off is taken up at the byte where it stopped.
"""

import contextlib
import hashlib
import os
import time
from http import HTTPStatus
from urllib.parse import quote, urlencode, urlsplit

from composeapps.errors import CorruptError, NotFoundError, RegistryError, UsageError
from composeapps.oci.digests import sha256
from composeapps.oci.documents import INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT
from composeapps.registry import address as addresses
from composeapps.registry.credentials import Credentials
from composeapps.registry.failures import PERMANENT, TRANSIENT, EndedError, Unavailable, is_page, reason
from composeapps.registry.heads import content_range
from composeapps.registry.patience import Patience
from composeapps.registry.requester import PORTAL, Known, Requester
from composeapps.registry.settings import Registries
from composeapps.registry.transport import Transport

__all__ = ["PERMANENT", "TRANSIENT", "RegistryClient", "Unavailable", "parse_endpoints", "reason"]
CHUNK = 256 * 1024
ACCEPT = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))
# Seconds that a manifest may take to arrive.
DOCUMENT_SECONDS = 300


class WrongLengthError(CorruptError):
    """A registry has another number of bytes for a blob than its descriptor says."""


def parse_endpoints(text):
    """Parse ``host=url …``, separated by white space: where a registry really listens.

    Raises UsageError naming the entry at fault.
    """
    endpoints = {}
    for entry in (text or "").split():
        host, equals, url = entry.partition("=")
        try:
            parts = urlsplit(url)
            good = equals and host and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or parts.username is not None or parts.query:
            raise UsageError(f"endpoint '{host + equals + addresses.redacted(url)}' is not of the form "
                             "HOST=http[s]://ADDRESS[:PORT]")
        endpoints[host] = url.rstrip("/")
    return endpoints


def given_endpoints(options=(), environ=None):
    """Return {registry host: base URL} of $COMPOSEAPPS_ENDPOINTS and of --endpoint options, which win over it.

    Raises UsageError naming the entry at fault.
    """
    environ = os.environ if environ is None else environ
    return parse_endpoints(" ".join([environ.get("COMPOSEAPPS_ENDPOINTS", ""), *options]))


class RegistryClient:
    """Talks to any number of registries.

    Arguments:
        endpoints: {registry host: base URL} for registries that listen elsewhere than their name says.
        credentials: a Credentials; those of the environment by default.
        timeout: seconds of silence on a connection before it counts as dead.
        context: an ssl.SSLContext for all registries.
        environ: the environment to read endpoints, credentials and proxies from.
        settings: {registry host: RegistrySettings}.
        patience: a Patience.
        receive_buffer: see transport.Transport.
        place: see settings.Registries.

    ``notify`` is called with a line of text when a try failed and another follows.

    Every method raises RegistryError when the registry cannot be reached or refuses,
    NotFoundError when it lacks what was asked for, and CorruptError when what it sent
    does not match its digest. A client serves one thread; others take its ``twin``.
    ``is_remote`` tells that what arrives damaged is not to be asked for again and again.
    """

    is_remote = True

    def __init__(self, endpoints=None, credentials=None, timeout=60, context=None, environ=None, settings=None,
                 patience=None, receive_buffer=None, place=None):
        environ = os.environ if environ is None else environ
        if endpoints is None:
            endpoints = given_endpoints(environ=environ)
        self._registries = Registries(settings, endpoints, context, place=place)
        self._known = Known(self._registries, credentials or Credentials(environ=environ))
        self._transport = Transport(timeout, environ, receive_buffer)
        self.patience = patience or Patience()
        self.timeout = timeout
        self.notify = lambda text: None

    def twin(self):
        """Return a client with connections of its own that shares logins and everything else."""
        other = object.__new__(RegistryClient)
        other.__dict__.update(self.__dict__)
        other._transport = self._transport.twin()
        return other

    def close(self):
        """Close all connections."""
        self._transport.close()

    def abort(self):
        """Have a request that another thread is in fail at once, and all later ones."""
        self._transport.abort()

    def base_url(self, host):
        """Return the URL under which ``host``'s API lives: loopback names speak plain http."""
        return self._registries.base_url(host)

    def manifest(self, ref, digest=None):
        """Fetch a manifest or an index.

        Arguments:
            ref: a Reference; its digest, else its tag ("latest" when it has neither) is fetched.
            digest: fetch this one from the reference's repository instead.

        Returns its bytes, whose digest matches the one that was asked for.
        """
        wanted = digest or ref.digest
        name = wanted or ref.tag or "latest"
        what = f"{ref.repository}{'@' if wanted else ':'}{name}"
        for direct in (False, True):
            data = self._document(ref, name, what, direct)
            if not wanted or sha256(data) == wanted:
                return data
        raise CorruptError(f"{what}: the registry sent a manifest whose digest is {sha256(data)}")

    def _document(self, ref, name, what, direct):
        failures = 0
        while True:
            try:
                response = self._once("GET", ref, f"manifests/{name}", what, headers={"Accept": ACCEPT}, direct=direct)
                with contextlib.closing(response):
                    self._refuse_page(response, ref, what)
                    return self._read(response, MAX_DOCUMENT, what)
            except Unavailable as err:
                failures += 1
                self._pause(err, failures)

    def open_blob(self, ref, digest, start=0, direct=False, size=None):
        """Ask for a blob once, from a byte on, with no second try.

        Arguments:
            ref: any Reference into the repository.
            digest: the blob's digest.
            start: the first byte that is wanted.
            direct: pass the mirrors by.
            size: its size in bytes where known.

        Returns (response, offset): the body begins at that byte of the blob, which is 0 when the
        registry cannot begin elsewhere, and None, without a body, when it has no such byte. Raises Unavailable
        for what may pass; WrongLengthError, before the first byte is read, for a blob of another size.
        """
        what = f"blob {digest} of {ref.repository}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._once("GET", ref, f"blobs/{digest}", what, headers=headers, direct=direct)
        try:
            if start and response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                response.close()
                return response, None
            if response.status == HTTPStatus.PARTIAL_CONTENT:
                part = content_range(response.headers.get("Content-Range"))
                if start and part and part[0] == start:
                    self._check(response, ref, what, size, part[2])
                    return response, start
                # Whatever part this is, it is not the one that was asked for.
                response.close()
                response = self._once("GET", ref, f"blobs/{digest}", what, direct=direct)
            if response.status != HTTPStatus.OK:
                raise RegistryError(f"registry {ref.host} failed on {what}: HTTP {response.status}")
            self._check(response, ref, what, size, response.length)
        except BaseException:
            response.close()
            raise
        return response, 0

    def _check(self, response, ref, what, size, length):
        """Refuse an answer that cannot be the blob, before any of it is kept."""
        if size is None or length != size:
            self._refuse_page(response, ref, what)
        if (response.headers.get("Content-Encoding") or "identity").lower() != "identity":
            raise Unavailable(f"registry {ref.host} failed on {what}: it comes in a coding that was not asked for",
                              "it comes in a coding that was not asked for", reached=True)
        if size is not None and length is not None and length != size:
            raise WrongLengthError(f"{what} has {length} bytes in the registry, not {size} as its descriptor says")

    @staticmethod
    def _refuse_page(response, ref, what):
        if is_page(response):
            raise Unavailable(f"registry {ref.host}: {what}: {PORTAL}", PORTAL.partition(":")[0], reached=True)

    def blob(self, ref, digest, size=None, direct=False):
        """Yield the chunks of a blob (bytes); the last one is yielded only if the whole matched its digest.

        Arguments:
            ref: any Reference into the repository.
            digest: the blob's digest.
            size: its size in bytes where known: more than that is not read.
            direct: pass the mirrors by.
        """
        what = f"blob {digest} of {ref.repository}"
        hasher, received, failures, pending = hashlib.sha256(), 0, 0, b""
        buffer = memoryview(bytearray(CHUNK))
        while size is None or received < size:
            before = received
            try:
                response, offset = self.open_blob(ref, digest, received, direct, size)
                if offset is None:
                    raise CorruptError(f"{what} has fewer bytes in the registry than it sent before")
                with contextlib.closing(response):
                    # This registry cannot resume: pass over what we have.
                    self._skip(response, received - offset, what)
                    while count := response.gather(buffer if size is None else buffer[:size - received]):
                        if pending:
                            yield pending
                        received += count
                        pending = bytes(buffer[:count])
                        hasher.update(pending)
                if size is None:
                    break
                failure = Unavailable(f"{what}: the connection ended after {received} bytes", "", reached=True)
            except Unavailable as err:
                failure = err
            except (OSError, *TRANSIENT) as err:
                failure = Unavailable(f"{what}: {reason(err)}", "", reached=True)
            if received != size:
                failures = failures + 1 if received == before else 1
                self._pause(failure, failures)
        if "sha256:" + hasher.hexdigest() != digest:
            raise CorruptError(f"{what} arrived with the wrong content (its digest is sha256:{hasher.hexdigest()})")
        if pending:
            yield pending

    def read_blob(self, ref, digest, size, limit=MAX_DOCUMENT):
        """Return a small blob as bytes; raises CorruptError when ``size`` is above ``limit`` bytes."""
        if size > limit:
            raise CorruptError(f"blob {digest} of {ref.repository} claims {size} bytes, more than the {limit} allowed")
        try:
            return b"".join(self.blob(ref, digest, size))
        except CorruptError:
            # Damaged on the way, or by a mirror: once more from the registry itself.
            return b"".join(self.blob(ref, digest, size, direct=True))

    def exists(self, ref, kind, digest):
        """Tell whether the repository has a blob (kind "blobs") or a manifest (kind "manifests")."""
        try:
            response = self._call("HEAD", ref, f"{kind}/{digest}", f"{ref.repository}@{digest}",
                                  headers={"Accept": ACCEPT} if kind == "manifests" else None)
        except NotFoundError:
            return False
        response.close()
        return True

    def push_blob(self, ref, digest, size, opener):
        """Upload a blob unless the repository has it.

        Arguments:
            ref: any Reference into the repository.
            digest, size: of the blob.
            opener: called with no argument, returns a binary file at its start; called again for each try.

        Returns True when it had to be sent.
        """
        if self.exists(ref, "blobs", digest):
            return False
        what = f"blob {digest} to {ref.repository}"
        for attempt in range(1, self.patience.tries + 1):
            begun = self._call("POST", ref, "blobs/uploads/", what, push=True, body=b"")
            begun.drain()
            if begun.status == HTTPStatus.CREATED:
                return True
            address = self._upload_address(begun, ref, what, digest)
            try:
                done = self._once("PUT", ref, address, what, push=True, body=opener, headers={
                    "Content-Type": "application/octet-stream", "Content-Length": str(size)})
                done.drain()
                return True
            except Unavailable as err:
                self._pause(err, attempt)
        return True

    def _upload_address(self, begun, ref, what, digest):
        """Return where an upload goes that a registry accepted."""
        location = begun.headers.get("Location")
        if not location:
            number = begun.headers.get("Docker-Upload-UUID")
            if not number:
                raise RegistryError(f"{what}: the registry accepted the upload but named no place for it")
            location = f"{self.base_url(ref.host)}/v2/{quote(ref.path)}/blobs/uploads/{quote(number, safe='')}"
        asked = begun.address
        address = addresses.join(asked, location, f"{what}: the registry's place for it")
        if asked.origin.scheme == "https" and address.origin.scheme == "http":
            if address.origin.host != asked.origin.host or address.origin.port not in (80, asked.origin.port):
                raise RegistryError(f"{what}: the registry leads from https to http ({address.shown}): refused")
            # Behind a proxy that ends TLS for it a registry does not always know that it has it.
            address = address._replace(origin=asked.origin)
        mark = "&" if "?" in address.target else "?"
        return address._replace(target=address.target + mark + urlencode({"digest": digest}))

    def push_manifest(self, ref, data, media_type):
        """Upload a manifest or an index under the reference's tag, or its digest when it has no tag."""
        name = ref.tag or sha256(data)
        response = self._call("PUT", ref, f"manifests/{name}", f"{ref.repository}:{name}", push=True, body=data,
                              headers={"Content-Type": media_type})
        response.drain()

    def next_pause(self, failure, failures):
        """Return the seconds until another try, or raise ``failure`` when that makes no sense any more.

        Arguments:
            failure: the Unavailable that the last try ended with.
            failures: how many tries in a row brought nothing, that one included.
        """
        patience = self.patience
        tries = patience.tries if failure.reached else min(patience.first_tries, patience.tries)
        if failure.hopeless or (failure.permanent and not patience.stubborn):
            raise RegistryError(str(failure)) from None
        if failures >= tries:
            raise RegistryError(f"{failure}; gave up after {tries} tries") from None
        return patience.pause(failures, failure.after)

    def _pause(self, failure, failures):
        seconds = self.next_pause(failure, failures)
        self.notify(f"{failure}; trying again in {seconds:.0f} s")
        time.sleep(seconds)

    def _call(self, method, ref, target, what, push=False, headers=None, body=None, direct=False):
        """Send a request, again and again as needed; return a good answer."""
        failures = 0
        while True:
            try:
                return self._once(method, ref, target, what, push, headers, body, direct)
            except Unavailable as err:
                failures += 1
                self._pause(err, failures)

    def _once(self, *args, **options):
        return Requester(self._known, self._transport, self.notify).once(*args, **options)

    @staticmethod
    def _read(response, limit, what):
        if response.length is not None and response.length > limit:
            raise CorruptError(f"{what} is longer than the {limit} bytes allowed")
        try:
            data = response.read(limit + 1, time.monotonic() + DOCUMENT_SECONDS)
        except EndedError:
            raise Unavailable(f"{what}: the connection ended early", "", reached=True) from None
        except (OSError, *TRANSIENT) as err:
            raise Unavailable(f"{what}: the connection broke off ({reason(err)})", "", reached=True) from None
        if len(data) > limit:
            raise CorruptError(f"{what} is longer than the {limit} bytes allowed")
        return data

    @staticmethod
    def _skip(response, count, what):
        while count:
            chunk = response.read(min(CHUNK, count))
            if not chunk:
                raise RegistryError(f"{what}: the registry sent less than before")
            count -= len(chunk)
