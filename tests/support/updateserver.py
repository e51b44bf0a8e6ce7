# SPDX-License-Identifier: MIT
"""A double of the update server of Foundries.io's (foundriesio/update-server), and of an EST server.

A real TLS server with a PKI of its own, which answers as that server was seen to, odd behaviour included: it knows a
device by its certificate's name and key, serves metadata by the tag of each request, forgets tokens, answers 200 and
drops, serves blobs under any repository's name. What a stranger in its place might do, ``misbehave`` has it do.
"""

import base64
import contextlib
import json
import os
import re
import socket
import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID

from support import pki

_DATE = "%a, %d %b %Y %H:%M:%S GMT"


class Request:
    """What arrived: ``method``, ``path`` with the query, ``headers`` (names in lower case), ``body`` (bytes)."""

    def __init__(self, method, path, headers, body, device):
        self.method, self.path, self.headers, self.body, self.device = method, path, headers, body, device

    @property
    def json(self):
        """The body as JSON."""
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.method} {self.path}"


class UpdateServer:
    """Listens on loopback; a context manager.

    Arguments:
        factory: a pki.Factory.
        certificate: (certificate, key), PEM, to show; one of the factory's by default.

    ``repositories`` maps (tag, update) to {file: bytes} of the metadata, ``rollouts`` a device's name to its update;
    ``stores`` are directories whose blobs/sha256 are given out. ``requests`` are all Requests so far, ``connections``
    how many there were, ``received`` and ``sent`` the bytes of them without TLS. ``events`` and ``states`` are what was
    kept of the reports, by device. ``token`` is what registration asks for.
    """

    def __init__(self, factory, certificate=None, port=0):
        self.factory = factory
        self.repositories, self.rollouts, self.stores, self.tokens = {}, {}, [], {}
        self.devices, self.denied, self.tags = {}, set(), {}
        self.requests, self.connections, self.received, self.sent = [], 0, 0, 0
        self.events, self.states, self.told, self.config = {}, {}, {}, {}
        self.token = "secret-of-the-operator"
        # What EST makes: days that a certificate is good for.
        self.est_days = 3650
        self._bad, self._server = {}, None
        self._lock = threading.Lock()
        self._certificate, self._port = certificate or factory.root.server(), port

    def __enter__(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as stream:
            stream.write("".join(self._certificate))
            stream.flush()
            context.load_cert_chain(stream.name)
        context.load_verify_locations(cadata=self.factory.devices.pem)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server = _Server(("127.0.0.1", self._port), self, context)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_exc):
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        """Where it listens."""
        return f"https://localhost:{self._port}"

    def restart(self):
        """Forget what is in memory only, as a restart does."""
        self.tokens.clear()

    def roll_out(self, device, tag, update, files):
        """Give a device an update: ``files`` are the metadata, {name: bytes}."""
        self.repositories[tag, update] = files
        self.rollouts[device] = (tag, update)

    def misbehave(self, path, how, times=10**9):
        """Have requests whose path matches a pattern answered by ``how(handler)``, so many times."""
        self._bad[path] = [how, times]

    def behave(self):
        """Have all answered properly again."""
        self._bad.clear()

    def paths(self):
        """Return the method and path, without query, of all requests so far."""
        return [f"{each.method} {each.path.partition('?')[0]}" for each in self.requests]

    def reported(self, device):
        """Return the kinds of the events of a device, in order."""
        return [event["eventType"]["id"] for event in self.events.get(device, [])]

    def bad(self, path):
        """Return what answers a path wrongly now, or None."""
        with self._lock:
            for pattern, entry in self._bad.items():
                if re.search(pattern, path) and entry[1] > 0:
                    entry[1] -= 1
                    return entry[0]
        return None


def status(number, text="", **headers):
    """Return a way to misbehave: answer with a status and a text."""
    return lambda handler: handler.answer(number, text.encode(), "text/plain", headers)


def hang(handler):
    """A way to misbehave: say nothing, until the other end goes."""
    with contextlib.suppress(OSError):
        handler.connection.recv(1)
    handler.close_connection = True


def endless(handler):
    """A way to misbehave: send a body without end."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            handler.wfile.write(b"x" * 65536)


def drop(handler):
    """A way to misbehave: end the connection."""
    handler.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, owner, context):
        self.owner, self._context = owner, context
        super().__init__(address, _Handler)

    def finish_request(self, request, client_address):
        # The handshake is the thread's of that connection: one that hangs is nobody else's business.
        self.owner.connections += 1
        with contextlib.suppress(OSError):
            secure = self._context.wrap_socket(request, server_side=True)
            try:
                self.RequestHandlerClass(_Counted(secure, self.owner), client_address, self)
            finally:
                with contextlib.suppress(OSError):
                    secure.shutdown(socket.SHUT_RDWR)
                secure.close()

    def handle_error(self, *_where):
        """Clients that go away are no news."""


class _Counted:
    """A socket that counts what goes through it."""

    def __init__(self, sock, owner):
        self._sock, self._owner = sock, owner

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def makefile(self, mode, size=-1):
        return self._sock.makefile(mode, size)

    def sendall(self, data):
        self._owner.sent += len(data)
        return self._sock.sendall(data)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        """Be quiet."""

    def version_string(self):
        return "double"

    def date_time_string(self, timestamp=None):
        return time.strftime(_DATE, time.gmtime(timestamp))

    @property
    def owner(self):
        return self.server.owner

    def answer(self, number, body=b"", kind="application/json", headers=None):
        """Send an answer with its length."""
        self.send_response(number)
        if number not in (204, 304):
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD" and number not in (204, 304):
            self.wfile.write(body)
            self.owner.sent += len(body)

    def text(self, number, text):
        self.answer(number, text.encode(), "text/plain; charset=UTF-8")

    def _do(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        certificate = self.connection.getpeercert(binary_form=True)
        device, key = None, None
        if certificate:
            found = x509.load_der_x509_certificate(certificate)
            device = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            key = pki.public(found.public_key())
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body, device)
        self.owner.requests.append(request)
        self.owner.received += len(self.raw_requestline) + len(str(self.headers)) + len(body)
        if how := self.owner.bad(self.path):
            how(self)
            return
        path = urlsplit(self.path).path
        if path.startswith("/registry"):
            self._blob(path, parse_qs(urlsplit(self.path).query).get("token", [""])[0])
        elif path == "/v1/devices" and self.command == "POST":
            self._register(request)
        elif path.startswith("/.well-known/est/"):
            self._est(path, request, device)
        elif device is None:
            self.text(403, "a client certificate is needed")
        elif device in self.owner.denied:
            self.text(403, f"Device({device}) is on the denied list")
        elif self.owner.devices.setdefault(device, key) != key:
            self.text(502, "Key rotation is not supported")
        else:
            if "x-ats-tags" in headers:
                self.owner.tags[device] = headers["x-ats-tags"]
            self._of_device(path, request, device)

    do_GET = do_POST = do_PUT = do_HEAD = do_PATCH = _do

    def _of_device(self, path, request, device):
        owner, method = self.owner, request.method
        if method == "GET" and path.startswith("/repo/"):
            tag, update = owner.rollouts.get(device, (None, None))
            files = owner.repositories.get((request.headers.get("x-ats-tags"), update)) if update else None
            found = (files or {}).get(path.removeprefix("/repo/"))
            self.text(404, "no such file") if found is None else self.answer(200, found, "text/plain")
        elif (method, path) == ("POST", "/app-proxy-url"):
            token = base64.b32encode(os.urandom(10)).decode()
            owner.tokens[token] = device
            self.text(201, f"{owner.url}/registry?token={token}")
        elif (method, path) == ("POST", "/events"):
            self._events(request, device)
        elif (method, path) == ("POST", "/apps-states"):
            self._states(request, device)
        elif (method, path) == ("GET", "/config"):
            self._config(request, device)
        elif method == "PUT" and path.startswith("/system_info"):
            if len(request.body) > 100_000:
                self.text(413, "too large")
                return
            owner.told.setdefault(device, {})[path] = request.body
            self.answer(200)
        elif (method, path) == ("GET", "/device"):
            self.answer(200, json.dumps({"uuid": device, "tag": owner.tags.get(device, "")}).encode())
        else:
            self.text(404, "not here")

    def _events(self, request, device):
        if len(request.body) > 100_000:
            self.text(413, "too large")
            return
        try:
            events = request.json
            assert events is None or isinstance(events, list)
            for event in events or []:
                assert isinstance(event["event"].get("version", ""), str)
                assert event["event"].get("success") in (True, False, None)
        except (ValueError, AssertionError, KeyError, TypeError, AttributeError):
            self.text(400, "bad events")
            return
        kept = self.owner.events.setdefault(device, [])
        kept += [event for event in events or [] if event.get("id")
                 and re.fullmatch("[A-Za-z0-9_-]+", event["event"].get("correlationId") or "")]
        self.answer(200)

    def _states(self, request, device):
        try:
            found = request.json
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", found["deviceTime"])
            assert isinstance(found["apps"], dict)
        except (ValueError, AssertionError, KeyError, TypeError):
            self.text(400, "bad states")
            return
        self.owner.states.setdefault(device, []).append(found)
        self.answer(200)

    def _config(self, request, device):
        found = self.owner.config.get(device)
        if found is None:
            self.answer(204)
            return
        # As seen: the date ends in UTC in place of GMT.
        date = "Sat, 28 Nov 2026 06:57:58 UTC"
        if request.headers.get("if-modified-since") == date:
            self.answer(304)
            return
        self.answer(200, json.dumps(found).encode(), headers={"Date": date})

    def _blob(self, path, token):
        found = re.fullmatch(r"/registry/v2/.+/(?:manifests|blobs)/sha256:([0-9a-f]{64})", path)
        if self.command == "HEAD":
            self.answer(200)
        elif token not in self.owner.tokens:
            self.text(401, "no such token")
        elif not found:
            self.text(404, "not here")
        else:
            for store in self.owner.stores:
                place = Path(store, "blobs/sha256", found[1])
                if place.is_file():
                    data, start = place.read_bytes(), 0
                    if ranged := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                        start = int(ranged[1])
                        if start >= len(data):
                            self.text(416, "no such range")
                            return
                    more = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if ranged else {}
                    self.answer(206 if ranged else 200, data[start:], "text/plain; charset=utf-8", more)
                    return
            self.text(404, "no such blob")

    def _register(self, request):
        if request.headers.get("authorization") != f"Bearer {self.owner.token}":
            self.answer(403, b'{"message": "no CSRF cookie"}')
            return
        asked = request.json
        subject = x509.load_pem_x509_csr(asked["csr"].encode()).subject
        names = [each.value for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        units = [each.value for each in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
        if names != [asked["uuid"]] or units != [self.owner.factory.root.unit]:
            self.answer(400, b'{"message": "CN or OU do not match"}')
        elif asked["uuid"] in self.owner.devices:
            self.answer(500, b'{"message": "UNIQUE constraint failed: devices.uuid"}')
        else:
            key = x509.load_pem_x509_csr(asked["csr"].encode()).public_key()
            self.owner.devices[asked["uuid"]] = pki.public(key)
            self.answer(201, json.dumps({
                "root.crt": self.owner.factory.root.pem, "sota.toml": "[pacman]\ntags = \"main\"\n",
                "client.pem": self.owner.factory.devices.answer(asked["csr"].encode())}).encode())

    def _est(self, path, request, device):
        authority = self.owner.factory.devices
        if path.endswith("/cacerts"):
            found = [self.owner.factory.root.certificate]
        elif path.endswith(("/simpleenroll", "/simplereenroll")):
            basic = base64.b64encode(f"device:{self.owner.token}".encode()).decode()
            if device is None and request.headers.get("authorization") != f"Basic {basic}":
                self.answer(401, b"who are you?", "text/plain", {"WWW-Authenticate": "Basic realm=est"})
                return
            certificate = authority.answer(base64.b64decode(request.body), after=self.owner.est_days * pki.DAY)
            found = [x509.load_pem_x509_certificate(certificate.encode())]
        else:
            self.text(404, "not here")
            return
        body = base64.encodebytes(pkcs7.serialize_certificates(found, Encoding.DER))
        self.answer(200, body, "application/pkcs7-mime; smime-type=certs-only")
