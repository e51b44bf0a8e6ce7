# SPDX-License-Identifier: MIT
"""A package index on a free port of the loopback interface, and source archives to publish there.

Speaks what gen-recipes reads of PyPI: the simple repository API in HTML, and files.
"""

import gzip
import hashlib
import html
import http.server
import io
import tarfile
import threading

PYPROJECT = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'


def pkg_info(name, version, *lines, metadata_version="2.4"):
    """Return a PKG-INFO with further header lines."""
    head = [f"Metadata-Version: {metadata_version}", f"Name: {name}", f"Version: {version}", *lines]
    return "\n".join(head) + "\n\nA description.\n"


def archive(top, files):
    """Return a .tar.gz of {path: text} below ``top``; a path that begins with "!" is taken as it is."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(path[1:] if path.startswith("!") else f"{top}/{path}")
            content = text.encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


class IndexServer:
    """The server; ``url`` is the index's address, ``requests`` are (path, Authorization) pairs.

    ``answers`` maps a path to (status, headers, body); a body that is shorter than its
    Content-Length breaks off.
    """

    def __init__(self):
        self.answers, self.requests, self._pages = {}, [], {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append((self.path, self.headers.get("Authorization")))
                status, headers, body = outer.answers.get(self.path, (404, {}, b"not here"))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = int(headers.get("Content-Length", len(body))) != len(body)

            def log_message(self, *_arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/simple"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self):
        """Stop the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def publish(self, page, filename, data, fragment=None, yanked=None, base=""):
        """Offer a file on a package's page and return its sha256.

        :param fragment: in place of "sha256=…" of the data
        :param base: the origin that the page says the file is on
        """
        digest = hashlib.sha256(data).hexdigest()
        path = f"/packages/{filename}"
        self.answers[path] = (200, {}, data)
        link = html.escape(f"{base}{path}#{f'sha256={digest}' if fragment is None else fragment}")
        attribute = f' data-yanked="{html.escape(yanked)}"' if yanked is not None else ""
        text = self._pages.get(page, "") + f'<a href="{link}"{attribute}>{filename}</a><br/>\n'
        self._pages[page] = text
        body = f"<!DOCTYPE html><html><body>\n{text}</body></html>\n".encode()
        self.answers[f"/simple/{page}/"] = (200, {"Content-Type": "text/html"}, body)
        return digest
