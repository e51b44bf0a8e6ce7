# SPDX-License-Identifier: MIT
"""HTTP over a unix socket, for tests that ask dockerd themselves."""

import http.client
import socket


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the unix socket ``path``; ``timeout`` is in seconds."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
