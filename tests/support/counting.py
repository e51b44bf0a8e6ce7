# SPDX-License-Identifier: MIT
"""A dockerd's socket that counts what is asked through it."""

import contextlib
import re
import socket
import threading

_REQUEST = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE) (/\S*) HTTP/1\.1\r\n")


class CountingSocket:
    """A unix socket that passes on to another one; a context manager.

    Arguments:
        path: where to listen.
        target: the socket of the dockerd.

    ``requests`` lists "METHOD /path?query" of each request since the last ``clear``, as they came.
    """

    def __init__(self, path, target):
        self.path, self.target = str(path), str(target)
        self.host = f"unix://{path}"
        self.requests = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self):
        self._listening.bind(self.path)
        self._listening.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc):
        self._listening.close()

    def clear(self):
        """Forget what was asked."""
        self.requests.clear()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dockerd, contextlib.suppress(OSError):
            dockerd.connect(self.target)
            back = threading.Thread(target=_pump, args=(dockerd, client), daemon=True)
            back.start()
            _pump(client, dockerd, self._note)
            back.join()

    def _note(self, data):
        # A client sends the head of a request in one piece, and dockerd's clients do not pipeline.
        if found := _REQUEST.match(data):
            self.requests.append(f"{data.split(b' ', 1)[0].decode()} {found[1].decode()}")


def _pump(source, target, note=lambda data: None):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            note(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
