# SPDX-License-Identifier: MIT
"""A server that answers with the very bytes that a test gives it, for what no real registry sends."""

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What came: method, target, {header in lower case: value} and the body."""

    method: str
    target: str
    headers: dict
    body: bytes


def reply(status=200, body=b"", *headers, length=None):
    """Return an answer as bytes; ``headers`` are (name, value), ``length`` is what it claims of the body's."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers)]
    if not any(name.lower() in ("content-length", "transfer-encoding") for name, _value in headers):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Scripted:
    """Listens on loopback; a context manager.

    Arguments:
        answer: called with each Request; returns bytes, or an iterable of bytes, after which the connection is closed.
        tls: a certificates.ServerCertificate to speak TLS with.
        host: the name that ``url`` has.

    ``requests`` are the Requests, oldest first; ``sent`` counts the bytes of the answers that were taken.
    """

    def __init__(self, answer, tls=None, host="127.0.0.1"):
        self._answer, self._context = answer, None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls.certificate, tls.key)
            self._context.load_verify_locations(tls.ca)
            self._context.verify_mode = ssl.CERT_OPTIONAL
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.netloc = f"{host}:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.netloc}"
        self.requests, self.certificates, self.sent = [], [], 0
        self.stopped = threading.Event()

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc):
        self.stopped.set()
        self._socket.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self._socket.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, contextlib.suppress(OSError, ValueError):
            client.settimeout(20)
            if self._context:
                client = self._context.wrap_socket(client, server_side=True)
                self.certificates.append(client.getpeercert())
            request = _read(client.makefile("rb"))
            self.requests.append(request)
            answer = self._answer(request)
            for piece in [answer] if isinstance(answer, bytes) else answer:
                if self.stopped.is_set():
                    break
                client.sendall(piece)
                self.sent += len(piece)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
                # One that is closed with something unread resets the connection, and takes the answer along.
                while client.recv(65536):
                    pass


def _read(stream):
    method, target, _version = stream.readline().decode().split()
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, target, headers, stream.read(int(headers.get("content-length", 0))))
