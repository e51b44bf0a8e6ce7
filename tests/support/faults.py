# SPDX-License-Identifier: MIT
"""A proxy before a real registry for faults that a registry does not produce: cuts, flips, 5xx, stalls."""

import contextlib
import http.client
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FaultyProxy:
    """Forwards requests to ``target`` and spoils the answers to GET.

    cut_after     close the connection after that many bytes of a body
    stall_after   send nothing more after that many bytes of a body, until the client gives up
    flip_at       flip a bit of the byte at that offset of a body
    status        answer with that status instead of forwarding, with the header Retry-After if given
    redirect_to   answer 307 to the same path there
    ignore_range  forward without the Range header
    shift_range   answer a Range with bytes from that many before the first that was asked for
    hold_after    after that many bytes of bodies in sum, send nothing until ``release`` is set
    times         how often; -1 for always
    only          a part of the path: other answers are left alone

    ``ranges`` are the Range headers of requests for blobs, ``paths`` all paths, ``body_bytes`` what was
    sent of bodies, ``sent`` the same for each path, ``connections`` how many there were; ``held`` is set
    when nothing is sent any more because of ``hold_after``.
    """

    def __init__(self, target, cut_after=None, stall_after=None, flip_at=None, status=None, retry_after=None,
                 redirect_to=None, ignore_range=False, shift_range=0, hold_after=None, times=-1, only=""):
        self.target = urlsplit(target)
        self.cut_after, self.flip_at, self.status, self.times = cut_after, flip_at, status, times
        self.stall_after, self.retry_after, self.redirect_to = stall_after, retry_after, redirect_to
        self.ignore_range, self.shift_range, self.hold_after, self.only = ignore_range, shift_range, hold_after, only
        self.ranges, self.paths, self.body_bytes, self.sent, self.connections = [], [], 0, {}, 0
        self.held, self.release = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                # What the kernel takes from us and has not delivered would count as sent.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
                with proxy._lock:
                    proxy.connections += 1

            def do_GET(self):
                with contextlib.suppress(ConnectionError):
                    proxy.serve(self)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_args: None
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exc):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def _strike(self, path):
        """Whether this answer is to be spoiled."""
        with self._lock:
            if self.times == 0 or self.only not in path:
                return False
            self.times -= self.times > 0
            return True

    def serve(self, handler):
        """Answer one request."""
        if handler.path.startswith("http://"):
            # Somebody takes us for a proxy in the usual sense.
            handler.path = "/" + handler.path.split("/", 3)[3]
        with self._lock:
            self.paths.append(handler.path)
            if "/blobs/" in handler.path and handler.command == "GET":
                self.ranges.append(handler.headers.get("Range"))
        if (self.status or self.redirect_to) and self._strike(handler.path):
            handler.send_response(self.status or 307)
            if self.retry_after is not None:
                handler.send_header("Retry-After", str(self.retry_after))
            if self.redirect_to:
                handler.send_header("Location", self.redirect_to + handler.path)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        upstream = http.client.HTTPConnection(self.target.netloc, timeout=20)
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection")}
        if "Range" in headers and self.ignore_range:
            del headers["Range"]
        elif "Range" in headers and self.shift_range and self._strike(handler.path):
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
            headers["Range"] = f"bytes={max(start - self.shift_range, 0)}-"
        upstream.request(handler.command, handler.path, headers=headers)
        answer = upstream.getresponse()
        body = answer.read()
        handler.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "connection"):
                handler.send_header(key, value)
        handler.end_headers()
        upstream.close()
        if handler.command == "HEAD":
            return
        if self.flip_at is not None and len(body) > self.flip_at and self._strike(handler.path):
            body = body[:self.flip_at] + bytes([body[self.flip_at] ^ 1]) + body[self.flip_at + 1:]
        if self.cut_after is not None and len(body) > self.cut_after and self._strike(handler.path):
            body = body[:self.cut_after]
            handler.close_connection = True
        stalls = self.stall_after is not None and len(body) > self.stall_after and self._strike(handler.path)
        self._send(handler, body[:self.stall_after] if stalls else body)
        if stalls:
            handler.close_connection = True
            # The client says by closing that it has given up.
            select.select([handler.connection], [], [])

    def _send(self, handler, body):
        view = memoryview(body)
        while view:
            with self._lock:
                room = len(view) if self.hold_after is None else max(self.hold_after - self.body_bytes, 0)
                part = view[:min(room, 64 * 1024)]
                self.body_bytes += len(part)
                self.sent[handler.path] = self.sent.get(handler.path, 0) + len(part)
            if not part:
                self.held.set()
                self.release.wait()
                self.hold_after = None
                continue
            handler.wfile.write(part)
            view = view[len(part):]
