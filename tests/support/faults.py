# SPDX-License-Identifier: MIT
"""A proxy before a real registry for faults that a registry does not produce: cuts, flips, 5xx."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FaultyProxy:
    """Forwards requests to ``target`` and spoils the answers to GET.

    cut_after   close the connection after that many bytes of a body
    flip_at     flip a bit of the byte at that offset of a body
    status      answer with that status instead of forwarding
    hold_after  send that many bytes of a body, then nothing until ``release()``; ``held`` is set meanwhile
    times       how often; -1 for always
    """

    def __init__(self, target, cut_after=None, flip_at=None, status=None, times=-1, hold_after=None):
        self.target = urlsplit(target)
        self.hold_after, self.held, self._released = hold_after, threading.Event(), threading.Event()
        self.cut_after, self.flip_at, self.status, self.times = cut_after, flip_at, status, times
        self.ranges, self.paths, self.body_bytes = [], [], 0
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                proxy.serve(self)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def release(self):
        """Let what is held go on."""
        self._released.set()

    def __exit__(self, *_exc):
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def _strike(self):
        """Whether this answer is to be spoiled."""
        with self._lock:
            if self.times == 0:
                return False
            self.times -= self.times > 0
            return True

    def serve(self, handler):
        """Answer one request."""
        with self._lock:
            self.paths.append(handler.path)
            if "/blobs/" in handler.path and handler.command == "GET":
                self.ranges.append(handler.headers.get("Range"))
        if self.status and self._strike():
            handler.send_response(self.status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        upstream = http.client.HTTPConnection(self.target.netloc, timeout=20)
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection")}
        upstream.request(handler.command, handler.path, headers=headers)
        answer = upstream.getresponse()
        body = answer.read()
        handler.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "connection"):
                handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if self.flip_at is not None and len(body) > self.flip_at and self._strike():
            body = body[:self.flip_at] + bytes([body[self.flip_at] ^ 1]) + body[self.flip_at + 1:]
        if self.cut_after is not None and len(body) > self.cut_after and self._strike():
            body = body[:self.cut_after]
            handler.close_connection = True
        if self.hold_after is not None and len(body) > self.hold_after and self._strike():
            handler.wfile.write(body[:self.hold_after])
            handler.wfile.flush()
            self.held.set()
            self._released.wait()
            body = body[self.hold_after:]
        with self._lock:
            self.body_bytes += len(body)
        handler.wfile.write(body)
        upstream.close()
