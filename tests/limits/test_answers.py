# SPDX-License-Identifier: MIT
"""A server's answer costs the agent at most 64 MiB and 5 seconds of CPU, however long it is."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.images import sha256


@contextlib.contextmanager
def endless(status, *headers):
    """A server whose answers have a body without end; yields its URL and a list of what was sent of each."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            chunk = b'{"errors": [{"message": "' + b"x" * 65000
            sent.append(0)
            with contextlib.suppress(OSError):
                while sent[-1] < 4 << 30:
                    self.wfile.write(chunk)
                    sent[-1] += len(chunk)
            self.close_connection = True

        do_HEAD = do_POST = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        thread.join()
        # Not server_close(), which would wait for whoever still writes.
        server.socket.close()


@pytest.mark.parametrize("headers", [(), (("Content-Length", "1000000000000"),)], ids=["no length", "a long one"])
@pytest.mark.parametrize("status", [200, 400, 401, 404, 403])
def test_an_answer_without_end(device, status, headers):
    challenge = (("WWW-Authenticate", 'Bearer realm="http://127.0.0.1:9/token"'),) if status == 401 else ()
    with endless(status, *headers, *challenge) as (url, sent):
        done = device.run("pull", f"{device.registry.host}/f/shop@{sha256(b'none')}",
                          endpoints=f"{device.registry.host}={url}")
    assert done.within().status not in (0, 1)
    assert sum(sent) < 64 << 20
