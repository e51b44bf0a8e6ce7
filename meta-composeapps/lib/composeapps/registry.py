# SPDX-License-Identifier: MIT
"""A client of OCI registries (distribution specification v1.1), stdlib-only.

Reads manifests and blobs by digest and checks each before handing it on; pushes them;
logs in with basic authentication or the bearer-token exchange. A transfer that breaks
off is taken up at the byte where it stopped.
"""

import hashlib
import os
import random
import re
import socket
import ssl
import time
from http import HTTPStatus
from urllib.parse import quote, urlencode, urljoin, urlsplit

from composeapps import __version__
from composeapps.credentials import Credentials
from composeapps.errors import CorruptError, NotFoundError, RegistryError, UsageError
from composeapps.oci import INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT, parse_json, sha256
from composeapps.transport import TRANSIENT, Transport

CHUNK = 256 * 1024
ATTEMPTS = 4
ACCEPT = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))
# Another try changes nothing: nobody listens, the name does not resolve, the certificate is another's.
PERMANENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)
_RETRY_STATUS = {429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}


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


class RegistryClient:
    """Talks to any number of registries.

    Arguments:
        endpoints: {registry host: base URL} for registries that listen elsewhere than their name says.
        credentials: a Credentials; those of the environment by default.
        timeout: seconds of silence on a connection before it counts as dead.
        environ: the environment to read endpoints, credentials and proxies from.

    Every method raises RegistryError when the registry cannot be reached or refuses,
    NotFoundError when it lacks what was asked for, and CorruptError when what it sent
    does not match its digest.
    """

    def __init__(self, endpoints=None, credentials=None, timeout=60, context=None, environ=None):
        environ = os.environ if environ is None else environ
        self._endpoints = endpoints if endpoints is not None else parse_endpoints(environ.get("COMPOSEAPPS_ENDPOINTS"))
        self._credentials = credentials or Credentials(environ=environ)
        self._transport = Transport(timeout, context, environ)
        self._tokens = {}
        self._basic = set()

    def close(self):
        """Close all connections."""
        self._transport.close()

    def base_url(self, host):
        """Return the URL under which ``host``'s API lives: loopback names speak plain http."""
        if host in self._endpoints:
            return self._endpoints[host]
        if host == "docker.io":
            return "https://registry-1.docker.io"
        name = urlsplit(f"//{host}").hostname or ""
        plain = name in ("localhost", "::1") or name.startswith("127.")
        return f"{'http' if plain else 'https'}://{host}"

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
        response = self._call("GET", ref, f"manifests/{name}", what, headers={"Accept": ACCEPT})
        data = self._read(response, MAX_DOCUMENT, what)
        if wanted and sha256(data) != wanted:
            raise CorruptError(f"{what}: the registry sent a manifest whose digest is {sha256(data)}")
        return data

    def blob(self, ref, digest, size=None):
        """Yield the chunks of a blob (bytes); the last one is yielded only if the whole matched its digest.

        Arguments:
            ref: any Reference into the repository.
            digest: the blob's digest.
            size: its size in bytes where known: more than that is not read.
        """
        what = f"blob {digest} of {ref.repository}"
        hasher, received, failures, pending = hashlib.sha256(), 0, 0, b""
        while True:
            headers = {"Range": f"bytes={received}-"} if received else {}
            response = self._call("GET", ref, f"blobs/{digest}", what, headers=headers)
            if received and response.status != HTTPStatus.PARTIAL_CONTENT:
                # This registry cannot resume: pass over what we have.
                self._skip(response, received, what)
            before = received
            try:
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
                problem = f"the connection ended after {received} bytes"
            except (OSError, *TRANSIENT) as err:
                problem = _reason(err)
            failures = failures + 1 if received == before else 1
            if failures >= ATTEMPTS:
                raise RegistryError(f"{what}: {problem}; gave up after {ATTEMPTS} tries")
            _pause(failures)
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
        return b"".join(self.blob(ref, digest, size))

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
        for attempt in range(1, ATTEMPTS + 1):
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
                if attempt == ATTEMPTS:
                    raise RegistryError(f"{what}: {_reason(err)}; gave up after {ATTEMPTS} tries") from None
                _pause(attempt)
        return True

    def push_manifest(self, ref, data, media_type):
        """Upload a manifest or an index under the reference's tag, or its digest when it has no tag."""
        name = ref.tag or sha256(data)
        response = self._call("PUT", ref, f"manifests/{name}", f"{ref.repository}:{name}", push=True, body=data,
                              headers={"Content-Type": media_type})
        response.read()

    def _call(self, method, ref, target, what, push=False, headers=None, body=None):
        """Send a request, logging in, following redirects and trying again as needed; return a good answer."""
        url = target if "://" in target else f"{self.base_url(ref.host)}/v2/{quote(ref.path)}/{target}"
        scope = f"repository:{ref.path}:{'pull,push' if push else 'pull'}"
        repeatable = body is None or isinstance(body, bytes)
        logged_in = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._follow(method, url, ref, scope, headers, body)
                if response.status == HTTPStatus.UNAUTHORIZED and not logged_in:
                    response.read()
                    logged_in = True
                    self._log_in(response.headers.get("WWW-Authenticate") or "", ref, scope)
                    if not repeatable:
                        raise ConnectionResetError("the registry asked for a login in the middle of an upload")
                    response = self._follow(method, url, ref, scope, headers, body)
            except (OSError, *TRANSIENT) as err:
                problem = _reason(err)
                if isinstance(err, PERMANENT):
                    break
                if not repeatable:
                    raise
            else:
                if response.status not in _RETRY_STATUS or not repeatable or attempt == ATTEMPTS:
                    return self._accept(response, ref, what)
                response.close()
            if attempt < ATTEMPTS:
                _pause(attempt)
        base = self.base_url(ref.host)
        raise RegistryError(f"registry {ref.host} ({base}) cannot be reached: {problem}")

    def _follow(self, method, url, ref, scope, headers, body):
        """Send one request and follow its redirects; our login never goes to another origin."""
        home = urlsplit(self.base_url(ref.host)).netloc
        for _hop in range(6):
            sent = {"User-Agent": f"composeapps/{__version__}", **(headers or {})}
            if urlsplit(url).netloc == home and (login := self._authorization(ref, scope)):
                sent["Authorization"] = login
            response = self._transport.send(method, url, sent, body)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location or method not in ("GET", "HEAD"):
                return response
            response.read()
            target = urljoin(url, location)
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise RegistryError(f"registry {ref.host} redirects from https to {urlsplit(target).scheme}: refused")
            url = target
        raise RegistryError(f"registry {ref.host} redirects in circles")

    def _authorization(self, ref, scope):
        if token := self._tokens.get((ref.host, scope)):
            return f"Bearer {token}"
        if ref.host in self._basic and (login := self._credentials.find(ref.host, ref.path)):
            return login.basic()
        return None

    def _log_in(self, challenge, ref, scope):
        """Answer a ``WWW-Authenticate`` challenge (RFC 7235; token exchange: distribution's auth/token)."""
        scheme, _, rest = challenge.partition(" ")
        login = self._credentials.find(ref.host, ref.path)
        if scheme.lower() == "basic":
            if login is None:
                raise RegistryError(f"registry {ref.host} wants a login for {ref.path}: put one in REGISTRY_AUTH_FILE")
            self._basic.add(ref.host)
            return
        params = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or not params.get("realm"):
            raise RegistryError(f"registry {ref.host} asks for the login method '{scheme}', which is not supported")
        query = {"scope": params.get("scope") or scope}
        if params.get("service"):
            query["service"] = params["service"]
        headers, body, method = {"User-Agent": f"composeapps/{__version__}"}, None, "GET"
        if login is not None and login.identity_token:
            method, headers["Content-Type"] = "POST", "application/x-www-form-urlencoded"
            body = urlencode({**query, "grant_type": "refresh_token", "refresh_token": login.identity_token,
                              "client_id": "composeapps"}).encode()
            url = params["realm"]
        else:
            url = params["realm"] + ("&" if "?" in params["realm"] else "?") + urlencode(query)
            if login is not None:
                headers["Authorization"] = login.basic()
        response = self._transport.send(method, url, headers, body)
        what = f"the token server of registry {ref.host}"
        if response.status != HTTPStatus.OK:
            known = "refused the login" if login else "wants a login: put one in REGISTRY_AUTH_FILE"
            raise RegistryError(f"{what} {known} for {ref.path} ({_message(response)})")
        answer = parse_json(self._read(response, MAX_DOCUMENT, what), what)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise RegistryError(f"{what} sent no token")
        self._tokens[(ref.host, scope)] = token

    def _accept(self, response, ref, what):
        """Return a response with a good status; turn any other into the error it means."""
        if response.status < 300:
            return response
        message = _message(response)
        if response.status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(f"{what} is not in the registry {ref.host}")
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise RegistryError(f"registry {ref.host} denies access to {ref.path} ({message}): "
                                "check the login in REGISTRY_AUTH_FILE")
        raise RegistryError(f"registry {ref.host} failed on {what}: {message}")

    @staticmethod
    def _read(response, limit, what):
        try:
            data = response.read(limit + 1)
        except TRANSIENT as err:
            raise RegistryError(f"{what}: the connection broke off ({_reason(err)})") from None
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


def _reason(err):
    if isinstance(err, TimeoutError):
        return "no answer in time"
    return getattr(err, "strerror", None) or str(err) or type(err).__name__


def _message(response):
    """The registry's own words for a failure, else the HTTP status."""
    status = f"HTTP {response.status} {response.reason}".strip()
    try:
        errors = parse_json(response.read(64 * 1024), "answer").get("errors")
        text = errors[0].get("message") or errors[0].get("code")
    except (CorruptError, AttributeError, IndexError, TypeError, KeyError, *TRANSIENT):
        return status
    return f"{status}: {text}" if isinstance(text, str) and text.isprintable() else status


def _pause(attempt):
    """Wait before another try: half a second, doubling, with jitter so that a fleet does not march in step."""
    time.sleep(0.5 * 2 ** (attempt - 1) * (0.5 + random.random()))
