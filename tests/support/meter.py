# SPDX-License-Identifier: MIT
"""A relay of TCP connections that counts what reaches the client."""

import contextlib
import socket
import threading


class Meter:
    """Listens, and passes each connection on to ``target``; a context manager.

    Arguments:
        target: ``HOST:PORT``.
        listening: a listening socket; one on loopback by default.
        send_buffer: bytes that the kernel may hold on the way to the client, which count as delivered.

    ``delivered`` counts bytes to the clients; ``address`` is where it listens.
    """

    def __init__(self, target, listening=None, send_buffer=16 * 1024):
        host, _, port = target.rpartition(":")
        self._target, self._send_buffer = (host, int(port)), send_buffer
        self._socket = listening or socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._changed = threading.Condition()
        self._open = 0
        self.delivered = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def wait_for(self, count, timeout):
        """Wait until ``count`` bytes were delivered; return whether they were, within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.delivered >= count, timeout)

    def settle(self):
        """Wait until no client is connected any more; return the bytes that were delivered by then."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open)
            return self.delivered

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self._socket.accept()[0]
                if self._send_buffer:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
                behind = socket.create_connection(self._target)
                with self._changed:
                    self._open += 1
                threading.Thread(target=self._copy, args=(client, behind, False), daemon=True).start()
                threading.Thread(target=self._copy, args=(behind, client, True), daemon=True).start()

    def _copy(self, source, target, counted):
        buffer = memoryview(bytearray(128 * 1024))
        with contextlib.suppress(OSError):
            while size := source.recv_into(buffer):
                view = buffer[:size]
                while view:
                    sent = target.send(view)
                    view = view[sent:]
                    if counted:
                        with self._changed:
                            self.delivered += sent
                            self._changed.notify_all()
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        source.close()
        if counted:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()
