# SPDX-License-Identifier: MIT
"""The device's side of the factory's server: one connection, TLS with the device's certificate, bounded answers.

Whatever is asked for tells the server which tag the device follows, which Target it has and which apps it runs: any
request is a check-in. The device's certificate is shown to the configured addresses alone, and no answer leads
elsewhere: a redirection is an error. What a request brings is not trusted for coming from here.

Requests and answers are those of the update server of Foundries.io's (foundriesio/update-server, its device gateway).
"""

import contextlib
import ssl
import time
from http import HTTPStatus
from pathlib import Path

from composeapps import __version__
from composeapps.disk import provision
from composeapps.errors import RegistryError, UsageError
from composeapps.registry import address as addresses
from composeapps.registry.failures import PERMANENT, TRANSIENT, Unavailable, is_hopeless, is_page, message, reason
from composeapps.registry.patience import retry_after
from composeapps.registry.texts import clean
from composeapps.registry.transport import Transport

# Seconds of silence after which the server counts as dead, and that an answer may take as a whole.
SILENCE, LONGEST = 30, 120
# Bytes of an answer that is no metadata and no blob.
ANSWER = 256 * 1024
# openssl/x509_vfy.h: X509_V_FLAG_NO_CHECK_TIME.
_NO_CHECK_TIME = 0x200000
# Bytes of a header: web servers take no line of 8 KiB, and a device whose requests are refused is out of reach.
_HEADER = 4000
_RETRY = {408, 429, 500, 502, 503, 504}


class Answer:
    """What a request brought: ``status``, ``headers`` (registry.heads.Headers), ``body`` (bytes)."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


class Service:
    """A server that is asked over one kept connection; a context manager.

    Arguments:
        base: its address, a text.
        what: how errors about the address name it.
        context: called without arguments for the ssl.SSLContext.
        environ: where a proxy is looked up.
        timeout: seconds of silence.

    ``base`` is its address.Address; ``requests`` counts what it was asked. No redirection is followed. Every method
    raises RegistryError: an Unavailable for what may pass, a Refused for a status of 400 or more that will not.
    """

    # How errors name it.
    kind = "the server"

    def __init__(self, base, what, context, environ=None, timeout=SILENCE):
        self.base, self.requests, self._context = addresses.parse(base, what), 0, context
        self._transport = Transport(timeout, environ)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        """End the connection."""
        self._transport.close()

    def get(self, path, what, limit=ANSWER, good=(200,), headers=None):
        """Ask for what is below the server; return the Answer.

        Arguments:
            path: below its address.
            what: how errors name what is asked for.
            limit: bytes; a longer answer is an error.
            good: the statuses of HTTP that are none.
            headers: {name: value}.
        """
        return self._ask("GET", _below(self.base, path), what, headers, limit=limit, good=good)

    def send(self, method, path, what, body, kind="application/json", good=(200,), headers=None):
        """Send bytes, or nothing (None), to what is below the server; return the Answer."""
        more = {"Content-Type": kind} if body is not None else {"Content-Length": "0"}
        return self._ask(method, _below(self.base, path), what, {**more, **(headers or {})}, body, good=good)

    def headers(self):
        """Return {name: value} of what each request has."""
        return {"User-Agent": f"composeapps/{__version__}"}

    def check(self, response):
        """Look at an answer before it is read."""

    def _ask(self, method, address, what, headers=None, body=None, limit=ANSWER, good=(200,)):
        failed = f"{self.kind} {address.origin.url} failed on {what}"
        self.requests += 1
        try:
            response = self._transport.send(method, address, {**self.headers(), **(headers or {})}, body,
                                            self._context)
            self.check(response)
            with contextlib.closing(response):
                if response.status not in good:
                    self._refuse(response, failed)
                # What web servers say of a file that they do not have is a page, too.
                if response.status != HTTPStatus.NOT_FOUND and is_page(response):
                    raise Unavailable(f"{failed}: it sent a web page instead, so something else answers in its place",
                                      "a web page", reached=True)
                if response.length is not None and response.length > limit:
                    raise RegistryError(f"{failed}: its answer has more than {limit} bytes")
                data = response.read(limit + 1, time.monotonic() + LONGEST)
        except (OSError, *TRANSIENT) as err:
            raise Unavailable(f"{failed}: {self._reason(err)}", reason(err), permanent=isinstance(err, PERMANENT),
                              hopeless=is_hopeless(err)) from None
        if len(data) > limit:
            raise RegistryError(f"{failed}: its answer has more than {limit} bytes")
        return Answer(response.status, response.headers, data)

    def _refuse(self, response, failed):
        status, after = response.status, retry_after(response.headers.get("Retry-After"))
        text = message(response)
        if 300 <= status < 400:
            raise RegistryError(f"{failed}: it leads elsewhere ({text}): refused, the configuration says where it is")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise Refused(f"{failed}: it does not let this device in ({text}); 'composeapps identity' shows who the "
                          "device is", status)
        if status in _RETRY:
            raise Unavailable(f"{failed}: {text}", text, after, reached=True)
        raise Refused(f"{failed}: {text}", status)

    def _reason(self, err):
        text = reason(err)
        # With TLS 1.3 a server says only after the handshake what it thinks of a client's certificate.
        if isinstance(err, ssl.SSLError) and not isinstance(err, ssl.SSLCertVerificationError) and (
                "ALERT" in (err.reason or "")):
            return f"{text}; it does not take this device's certificate: 'composeapps identity' shows it"
        if isinstance(err, ConnectionError | ssl.SSLError) and not isinstance(
                err, (*PERMANENT, ssl.SSLCertVerificationError)):
            # Its alert may be lost with the connection.
            return f"{text}; perhaps it does not take this device's certificate: 'composeapps identity' shows it"
        return text


class Gateway(Service):
    """The device gateway that the configuration names.

    Arguments:
        config: the Config, with a ``server``.
        floor: the time, in seconds since 1970, before which no clock is believed (the build's, or what was last seen
            signed). When the device's clock is behind it, certificates are held against this time.
        files: see make_context.
        environ, timeout: as of a Service.

    ``target`` is the name of the Target that is installed and ``apps`` the names of the apps that run; both go with
    each request, None for what is not known.
    """

    def __init__(self, config, floor=0, files=None, environ=None, timeout=SILENCE):
        super().__init__(config.server, "the server of [delivery]", self.context, environ, timeout)
        self._config, self._floor, self._files = config, floor, files
        self._repo = addresses.parse(config.repo_server or f"{config.server}/repo", "repo_server of [delivery]")
        self.target, self.apps = None, None
        self._contexts = {}

    def fetch(self, name, limit):
        """Return a file of the signed metadata (bytes), None when the server has none.

        Arguments:
            name: "timestamp.json", "2.root.json".
            limit: bytes; a longer one is an error.
        """
        answer = self._ask("GET", _below(self._repo, name), name, limit=limit, good=(200, 404))
        return answer.body if answer.status == HTTPStatus.OK else None

    def headers(self):
        """Return the headers that tell the device's state."""
        found = super().headers()
        if self._config.tags:
            found["x-ats-tags"] = self._config.tags[0]
        if self.target is not None:
            found["x-ats-target"] = _header(self.target)
        if self.apps is not None:
            found["x-ats-dockerapps"] = _listed(map(_header, self.apps))
        return found

    def context(self):
        """Return the ssl.SSLContext with the device's certificate. Raises UsageError for an identity that is none."""
        return self._made(True)

    def anonymous(self):
        """Return the ssl.SSLContext without it, for addresses that have a token in them."""
        return self._made(False)

    def _made(self, own):
        if own not in self._contexts:
            self._contexts[own] = make_context(self._config.identity_dir, own, self.is_behind(), self._files)
        return self._contexts[own]

    def renewed(self):
        """Have the next request show the certificate that is there now."""
        self._contexts.clear()

    def is_behind(self):
        """Tell whether the device's clock says less than what is known to have been."""
        return time.time() < self._floor

    def check(self, response):
        """Have a clock that is behind accept no certificate that was out of date at the floor."""
        if not self.is_behind():
            return
        certificate = response.certificate()
        if certificate and ssl.cert_time_to_seconds(certificate["notAfter"]) < self._floor:
            response.close()
            raise RegistryError(f"the server {self.base.origin.url} shows a certificate that has expired, even by "
                                "the oldest time that can be: refused")


class Refused(RegistryError):
    """The server answered that it will not; ``status`` is the one of HTTP."""

    def __init__(self, text, status):
        super().__init__(text)
        self.status = status


class Blobs:
    """Where a Target's blobs are, for composeapps.registry.settings.Registries: an address with a token in it.

    The server gives it for an hour, and forgets it when it is started anew: then another one is asked for. A server
    that gives none (404) has its apps in registries.

    Arguments:
        gateway: the Gateway, which nobody else uses meanwhile.
    """

    # An address that is refused so often in a row is not asked for again.
    _TRIES = 5

    def __init__(self, gateway):
        import threading

        self._gateway, self._url, self._lock, self._refused = gateway, None, threading.Lock(), 0

    def url(self, _host):
        """Return the address for a registry's blobs, "" when it is the registry's own."""
        with self._lock:
            if self._url is None:
                self._url = self._ask()
            return self._url

    def context(self):
        """Return the ssl.SSLContext: the token is all, so the device's certificate is not shown."""
        return self._gateway.anonymous()

    def refused(self, url):
        """Note that an address is not taken any more; return whether another one may be."""
        with self._lock:
            if url == self._url:
                self._url, self._refused = None, self._refused + 1
            return self._refused < self._TRIES

    def _ask(self):
        what = "the place of the apps' blobs"
        try:
            answer = self._gateway.send("POST", "app-proxy-url", what, None, good=(200, 201))
        except Refused as err:
            if err.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
                return ""
            raise
        text = answer.body.decode("latin-1").strip()
        home = self._gateway.base.origin
        try:
            address = addresses.parse(text, what) if text.isprintable() else None
        except RegistryError:
            address = None
        if address is None or (address.origin.scheme, address.origin.host) != ("https", home.host):
            raise RegistryError(f"the server {home.url} names another host than its own, or no https address, as "
                                f"{what}: refused")
        return str(address)


def make_context(directory, own=True, timeless=False, files=None):
    """Return an ssl.SSLContext of a device's identity: its authority, and its certificate and key where ``own``.

    Arguments:
        directory: the identity's.
        own: whether the device shows its certificate.
        timeless: whether certificates are taken whatever the clock says of them.
        files: {name: path} of files that are used in place of those of these names.

    The key may lie elsewhere: pkey.pem then names it ("PKCS#11 PROVIDER URI"), and OpenSSL's provider has it. Raises
    UsageError naming the file at fault.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if timeless:
        context.verify_flags |= _NO_CHECK_TIME
    def place(name):
        return (files or {}).get(name) or Path(directory, name)

    authority = place(provision.AUTHORITY)
    _load(authority, lambda: context.load_verify_locations(cafile=authority))
    if own:
        certificate, key = place(provision.CERTIFICATE), place(provision.KEY)
        _load(certificate, lambda: context.load_cert_chain(certificate, key, password=lambda: ""))
    return context


def _load(file, action):
    try:
        action()
    except FileNotFoundError:
        raise UsageError(f"this device has no {file}, or no key for it: 'composeapps enroll' gets its identity"
                         ) from None
    except (OSError, ValueError) as err:
        why = clean(getattr(err, "reason", None) or getattr(err, "strerror", None) or "it is not PEM")
        raise UsageError(f"the device's identity cannot be used ({file}: {why.replace('_', ' ').lower()}): "
                         "'composeapps identity' shows it") from None


def _below(base, path):
    return base._replace(target=f"{base.target.rstrip('/')}/{path}")


def _header(text):
    return "".join(char if char.isascii() and char.isprintable() and char != "," else "_" for char in text)[:_HEADER]


def _listed(names):
    """Return names as a header, of too many the first ones."""
    text = ",".join(names)
    return text if len(text) <= _HEADER else text[:text.rindex(",", 0, _HEADER + 1)]
