# SPDX-License-Identifier: MIT
"""A dockerd's socket that counts what is asked through it, and may be a slow one."""

import contextlib
import re
import socket
import threading
import time

_REQUEST = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE) (/\S*) HTTP/1\.[01]\r\n")
# What docker compose says of itself; the agent's own requests name no program.
_PROGRAM = re.compile(rb"\r\nuser-agent: *[^\r]", re.IGNORECASE)


class CountingSocket:
    """A unix socket that passes on to another one; a context manager.

    Arguments:
        path: where to listen.
        target: the socket of the dockerd.
        delay: seconds by which each request is held back; ``own_delay`` is for those alone that docker compose did
            not make, to see which of them are made side by side.

    ``requests`` lists "METHOD /path?query" of each request since the last ``clear``, as they came, ``own`` those
    that docker compose did not make. ``depth`` is how many of these own ones followed each other: one that was sent
    after another's answer had begun is one deeper than that.
    """

    def __init__(self, path, target, delay=0.0):
        self.path, self.target, self.delay, self.own_delay = str(path), str(target), delay, 0.0
        self.host = f"unix://{path}"
        self.requests, self.own, self.depth = [], [], 0
        self._answered, self._lock = 0, threading.Lock()
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
        with self._lock:
            self.requests, self.own, self.depth, self._answered = [], [], 0, 0

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        passing = _Passing(self)
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dockerd, contextlib.suppress(OSError):
            dockerd.connect(self.target)
            back = threading.Thread(target=_pump, args=(dockerd, client, passing.answer), daemon=True)
            back.start()
            _pump(client, dockerd, passing.ask)
            back.join()

    def asked(self, text, own):
        """Note a request; return how deep it is, 0 for one that is not our own."""
        with self._lock:
            self.requests.append(text)
            if not own:
                return 0
            self.own.append(text)
            depth = self._answered + 1
            self.depth = max(self.depth, depth)
            return depth

    def answered(self, depth):
        """Note that the answer to a request of a depth begins."""
        with self._lock:
            self._answered = max(self._answered, depth)


class _Passing:
    """One connection, on which requests do not overlap."""

    def __init__(self, counting):
        self._counting, self._depth = counting, 0

    def ask(self, data):
        # A client sends the head of a request in one piece, and dockerd's clients do not pipeline.
        if found := _REQUEST.match(data):
            own = not _PROGRAM.search(data.partition(b"\r\n\r\n")[0] + b"\r\n")
            self._depth = self._counting.asked(f"{data.split(b' ', 1)[0].decode()} {found[1].decode()}", own)
            time.sleep(max(self._counting.delay, self._counting.own_delay if own else 0.0))

    def answer(self, _data):
        if self._depth:
            self._counting.answered(self._depth)
            self._depth = 0


def _pump(source, target, note):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            note(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
