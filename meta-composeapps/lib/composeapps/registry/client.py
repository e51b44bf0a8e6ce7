# SPDX-License-Identifier: MIT
"""A client of OCI registries (distribution specification v1.1), stdlib-only.

Reads manifests and blobs by digest and checks each before handing it on; pushes them;
logs in with basic authentication or the bearer-token exchange; asks mirrors first. A
transfer that breaks off is taken up at the byte where it stopped.
"""

import hashlib
import os
import re
import socket
import ssl
import time
from http import HTTPStatus
from urllib.parse import quote, urlencode, urljoin, urlsplit

from composeapps import __version__
from composeapps.errors import CorruptError, NotFoundError, RegistryError, UsageError
from composeapps.oci.digests import sha256
from composeapps.oci.documents import INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT
from composeapps.registry.credentials import Credentials
from composeapps.registry.login import Logins, message
from composeapps.registry.patience import Patience, retry_after
from composeapps.registry.settings import Registries
from composeapps.registry.transport import TRANSIENT, Transport

CHUNK = 256 * 1024
ACCEPT = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))
# Another try seldom changes anything: nobody listens, the name does not resolve.
PERMANENT = (ConnectionRefusedError, socket.gaierror)
# Seconds for which a mirror that failed is not asked again.
MIRROR_REST = 60
_RETRY_STATUS = {408, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}


class Unavailable(RegistryError):
    """A try failed for a reason that may pass.

    ``after`` is for how many seconds the registry asked to be left alone, or None; ``permanent`` tells
    that another try seldom helps, ``hopeless`` that none will; ``reached`` that the registry has answered before.
    """

    def __init__(self, text, problem, after=None, permanent=False, hopeless=False, reached=False):
        super().__init__(text)
        self.problem, self.after = problem, after
        self.permanent, self.hopeless, self.reached = permanent, hopeless, reached


def parse_endpoints(text):
    """Parse ``host=url …``, separated by white space: where a registry really listens.

    Raises UsageError naming the entry at fault.
    """
    endpoints = {}
    for entry in (text or "").split():
        host, equals, url = entry.partition("=")
        if not equals or not host or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise UsageError(f"endpoint '{entry}' is not of the form HOST=http[s]://ADDRESS[:PORT]")
        endpoints[host] = url.rstrip("/")
    return endpoints


class _Shared:
    """What a client and its twins have in common: the registries, the logins, which mirrors rest, who ever answered."""

    def __init__(self, registries, logins):
        self.registries, self.logins = registries, logins
        self.resting, self.reached = {}, set()


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

    ``notify`` is called with a line of text when a try failed and another follows.

    Every method raises RegistryError when the registry cannot be reached or refuses,
    NotFoundError when it lacks what was asked for, and CorruptError when what it sent
    does not match its digest. A client serves one thread; others take its ``twin``.
    """

    def __init__(self, endpoints=None, credentials=None, timeout=60, context=None, environ=None, settings=None,
                 patience=None, receive_buffer=None):
        environ = os.environ if environ is None else environ
        if endpoints is None:
            endpoints = parse_endpoints(environ.get("COMPOSEAPPS_ENDPOINTS"))
        self._shared = _Shared(Registries(settings, endpoints, context),
                               Logins(credentials or Credentials(environ=environ)))
        self._transport_options = (timeout, environ, receive_buffer)
        self._transport = Transport(*self._transport_options)
        self.patience = patience or Patience()
        self.timeout = timeout
        self.notify = lambda text: None

    def twin(self):
        """Return a client with connections of its own that shares logins and everything else."""
        other = object.__new__(RegistryClient)
        other.__dict__.update(self.__dict__)
        other._transport = Transport(*self._transport_options)
        return other

    def close(self):
        """Close all connections."""
        self._transport.close()

    def abort(self):
        """Have a request that another thread is in fail at once, and all later ones."""
        self._transport.abort()

    def base_url(self, host):
        """Return the URL under which ``host``'s API lives: loopback names speak plain http."""
        return self._shared.registries.base_url(host)

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
                return self._read(response, MAX_DOCUMENT, what)
            except Unavailable as err:
                failures += 1
                self._pause(err, failures)

    def open_blob(self, ref, digest, start=0, direct=False):
        """Ask for a blob once, from a byte on, with no second try.

        Arguments:
            ref: any Reference into the repository.
            digest: the blob's digest.
            start: the first byte that is wanted.
            direct: pass the mirrors by.

        Returns (response, offset): the body begins at that byte of the blob, which is 0 when the
        registry cannot begin elsewhere. Raises Unavailable for what may pass.
        """
        what = f"blob {digest} of {ref.repository}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._once("GET", ref, f"blobs/{digest}", what, headers=headers, direct=direct)
        if not start or response.status != HTTPStatus.PARTIAL_CONTENT:
            return response, 0
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
        if found and int(found[1]) == start:
            return response, start
        # Whatever part this is, it is not the one that was asked for.
        response.close()
        return self._once("GET", ref, f"blobs/{digest}", what, direct=direct), 0

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
        while True:
            before = received
            try:
                response, offset = self.open_blob(ref, digest, received, direct)
                # This registry cannot resume: pass over what we have.
                self._skip(response, received - offset, what)
                while chunk := response.read(CHUNK):
                    if pending:
                        yield pending
                    received += len(chunk)
                    if size is not None and received > size:
                        raise CorruptError(f"{what} is longer than its {size} bytes")
                    hasher.update(chunk)
                    pending = chunk
                if not _short(response, size, received):
                    break
                failure = Unavailable(f"{what}: the connection ended after {received} bytes", "", reached=True)
            except Unavailable as err:
                failure = err
            except (OSError, *TRANSIENT) as err:
                failure = Unavailable(f"{what}: {reason(err)}", "", reached=True)
            failures = failures + 1 if received == before else 1
            self._pause(failure, failures)
        if size is not None and received != size:
            raise CorruptError(f"{what} has {received} bytes, not {size}")
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
        response.read()
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
            response = self._call("POST", ref, "blobs/uploads/", what, push=True, body=b"")
            response.read()
            location = response.headers.get("Location")
            if not location:
                raise RegistryError(f"{what}: the registry accepted the upload but named no place for it")
            url = urljoin(self.base_url(ref.host) + "/", location)
            url += ("&" if urlsplit(url).query else "?") + urlencode({"digest": digest})
            try:
                with opener() as stream:
                    done = self._call("PUT", ref, url, what, push=True, body=stream, headers={
                        "Content-Type": "application/octet-stream", "Content-Length": str(size)})
                done.read()
                return True
            except TRANSIENT as err:
                self._pause(Unavailable(f"{what}: {reason(err)}", "", reached=True), attempt)
        return True

    def push_manifest(self, ref, data, media_type):
        """Upload a manifest or an index under the reference's tag, or its digest when it has no tag."""
        name = ref.tag or sha256(data)
        response = self._call("PUT", ref, f"manifests/{name}", f"{ref.repository}:{name}", push=True, body=data,
                              headers={"Content-Type": media_type})
        response.read()

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
                if body is not None and not isinstance(body, bytes):
                    raise ConnectionResetError(err.problem or str(err)) from None
                failures += 1
                self._pause(err, failures)

    def _once(self, method, ref, target, what, push=False, headers=None, body=None, direct=False):
        """Send a request to the mirrors and then to the registry; return the first good answer.

        Raises Unavailable when the registry's own failure may pass, else what its answer means.
        """
        if not push and not direct and "://" not in target:
            for name, base in self._shared.registries.mirrors(ref.host):
                if self._shared.resting.get(base, 0) > time.monotonic():
                    continue
                problem = self._try_mirror(name, base, method, ref, target, headers)
                if not isinstance(problem, str):
                    return problem
                if problem:
                    self._shared.resting[base] = time.monotonic() + MIRROR_REST
                    self.notify(f"mirror {base}: {problem}; asking registry {ref.host}")
        base = self.base_url(ref.host)
        unreachable = f"registry {ref.host} ({base}) cannot be reached"
        try:
            response = self._answered(ref.host, base, method, ref, target, push, headers, body)
        except ssl.SSLCertVerificationError as err:
            raise Unavailable(f"{unreachable}: {reason(err)}", reason(err), hopeless=True) from None
        except (OSError, *TRANSIENT) as err:
            raise Unavailable(f"{unreachable}: {reason(err)}", reason(err), permanent=isinstance(err, PERMANENT),
                              reached=ref.host in self._shared.reached) from None
        self._shared.reached.add(ref.host)
        if response.status in _RETRY_STATUS:
            after = retry_after(response.headers.get("Retry-After"))
            text = message(response)
            response.close()
            raise Unavailable(f"registry {ref.host} failed on {what}: {text}", text, after, reached=True)
        return self._accept(response, ref, what)

    def _try_mirror(self, name, base, method, ref, target, headers):
        """Return a mirror's good answer, "" when it lacks what is asked for, or what is wrong with it."""
        try:
            response = self._answered(name, base, method, ref, target, False, headers, None)
        except RegistryError as err:
            return str(err)
        except (OSError, *TRANSIENT) as err:
            return reason(err)
        if response.status < 300:
            return response
        text = "" if response.status == HTTPStatus.NOT_FOUND else message(response)
        response.close()
        return text

    def _answered(self, host, base, method, ref, target, push, headers, body):
        """Send a request to one registry or mirror, logging in when it asks for that."""
        url = target if "://" in target else f"{base}/v2/{quote(ref.path)}/{target}"
        scope = f"repository:{ref.path}:{'pull,push' if push else 'pull'}"
        logins = self._shared.logins
        login = logins.authorization(host, ref.path, scope)
        response = self._follow(method, url, host, base, login, headers, body)
        if response.status != HTTPStatus.UNAUTHORIZED:
            return response
        response.read()
        logins.answer(response.headers.get("WWW-Authenticate") or "", host, ref.path, scope, login,
                      lambda *request: self._send(host, *request))
        if body is not None and not isinstance(body, bytes):
            raise ConnectionResetError("the registry asked for a login in the middle of an upload")
        return self._follow(method, url, host, base, logins.authorization(host, ref.path, scope), headers, body)

    def _send(self, host, method, url, headers, body):
        registries = self._shared.registries
        return self._transport.send(method, url, headers, body, lambda: registries.context(host),
                                    registries.settings(host).proxy)

    def _follow(self, method, url, host, base, login, headers, body):
        """Send one request and follow its redirects; our login never goes to another origin."""
        home = urlsplit(base)[:2]
        for _hop in range(6):
            sent = {"User-Agent": f"composeapps/{__version__}", **(headers or {})}
            if login and urlsplit(url)[:2] == home:
                sent["Authorization"] = login
            response = self._send(host, method, url, sent, body)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location or method not in ("GET", "HEAD"):
                return response
            response.read()
            target = urljoin(url, location)
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise RegistryError(f"registry {host} redirects from https to {urlsplit(target).scheme}: refused")
            url = target
        raise RegistryError(f"registry {host} redirects in circles")

    def _accept(self, response, ref, what):
        """Return a response with a good status; turn any other into the error it means."""
        if response.status < 300:
            return response
        text = message(response)
        if response.status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(f"{what} is not in the registry {ref.host}")
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise RegistryError(f"registry {ref.host} denies access to {ref.path} ({text}): "
                                "check the login in REGISTRY_AUTH_FILE")
        raise RegistryError(f"registry {ref.host} failed on {what}: {text}")

    @staticmethod
    def _read(response, limit, what):
        try:
            data = response.read(limit + 1)
        except (OSError, *TRANSIENT) as err:
            raise Unavailable(f"{what}: the connection broke off ({reason(err)})", "", reached=True) from None
        if len(data) <= limit and response.length:
            raise Unavailable(f"{what}: the connection ended after {len(data)} bytes", "", reached=True)
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


def _short(response, size, received):
    """Tell whether an answer ended early: http.client reports that only for a read to the end."""
    if size is not None:
        return received < size
    return bool(response.length)


def reason(err):
    """Say in a few words why the network failed."""
    if isinstance(err, TimeoutError):
        return "no answer in time"
    return getattr(err, "strerror", None) or str(err) or type(err).__name__
