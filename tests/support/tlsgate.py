# SPDX-License-Identifier: MIT
"""A TLS server that asks for a client's certificate and passes what it gets on to a plain one."""

import contextlib
import socket
import ssl
import threading


class TlsGate:
    """Listens on loopback; a context manager.

    Arguments:
        address: ``HOST:PORT`` behind it, without TLS.
        server: a certificates.ServerCertificate; clients must show a certificate of its CA.

    ``url`` is where it listens; ``subjects`` are those of the clients that were let in.
    """

    def __init__(self, address, server):
        host, _, port = address.rpartition(":")
        self._behind = (host, int(port))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(server.certificate, server.key)
        self._context.load_verify_locations(server.ca)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._socket.getsockname()[1]}"
        self.subjects = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self._socket.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self._socket.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), self._context.wrap_socket(client, server_side=True) as secure:
            self.subjects.append(dict(pair for item in secure.getpeercert()["subject"] for pair in item))
            with socket.create_connection(self._behind) as behind:
                back = threading.Thread(target=_copy, args=(behind, secure), daemon=True)
                back.start()
                _copy(secure, behind)
                back.join()


def _copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
