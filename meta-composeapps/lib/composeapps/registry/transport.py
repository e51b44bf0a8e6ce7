# SPDX-License-Identifier: MIT
"""HTTP for the registry client: kept connections, proxies, clear errors.

The standard library's http.client and not urllib3, because BitBake imports this and
BitBake has nothing else.
"""

import base64
import contextlib
import http.client
import os
import socket
import ssl
import struct
from urllib.parse import unquote, urlsplit

from composeapps.errors import RegistryError

# What a broken or slow network looks like from here: worth another try on a new connection.
TRANSIENT = (ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)
# A connection that takes longer to come about does not.
CONNECT_SECONDS = 15
# Below this round-trip time, in microseconds, a small receive buffer costs no speed.
NEAR = 5000
# linux/tcp.h: where tcpi_rtt (u32, microseconds) lies in struct tcp_info.
_TCPI_RTT = 68


def proxy_for(url, environ):
    """Return the proxy URL for ``url`` from the environment's usual variables, or None."""
    parts = urlsplit(url)
    raw = [item.strip() for item in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")]
    skip = [item.lstrip("*").lstrip(".") for item in raw]
    host = parts.hostname or ""
    if any(item and (host == item or host.endswith("." + item)) for item in skip) or "*" in raw:
        return None
    if host in ("localhost", "::1") or host.startswith("127."):
        return None
    names = (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((environ[name] for name in names if environ.get(name)), None)


def read_into(response, view):
    """Read what is there of an answer's body, waiting for something, into ``view`` (a memoryview).

    Returns how many bytes that were, 0 at the end. As ``response.read1``, but without memory of its own
    for each piece, which for pieces of this size costs more than their way through the kernel.
    """
    if response.length is None or response.chunked:
        data = response.read1(len(view))
        view[:len(data)] = data
        return len(data)
    count = response.fp.readinto1(view[:response.length]) if response.length else 0
    response.length -= count
    return count


class Transport:
    """Sends requests and keeps the connections.

    Arguments:
        timeout: seconds of silence after which a connection counts as dead.
        environ: where proxies are looked up.
        receive_buffer: bytes that the kernel may hold back for us on a connection over a short way,
            None for what it likes. What lies there when the process is killed was fetched for nothing.

    Not safe for use from several threads, but for ``abort``: each takes a Transport of its own.
    """

    def __init__(self, timeout=60, environ=None, receive_buffer=None):
        self._timeout = timeout
        self._environ = os.environ if environ is None else environ
        self._receive_buffer = receive_buffer
        self._connections = {}
        self._aborted = False

    def send(self, method, url, headers=None, body=None, context=ssl.create_default_context, proxy=None):
        """Send one request and return the http.client.HTTPResponse, whatever its status.

        Arguments:
            context: called for the ssl.SSLContext when a connection needs one; connections are kept
                apart by it.
            proxy: the proxy's URL, "" for none, None for the environment's.

        A kept connection that the peer closed in the meantime is replaced once, silently, if the
        body can be sent again. Raises the exceptions in ``TRANSIENT`` and other OSErrors.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"'{url}' is not an http or https address")
        secure = context() if parts.scheme == "https" else None
        key = (parts.scheme, parts.netloc, id(secure), proxy)
        target = parts.path or "/"
        if parts.query:
            target += "?" + parts.query
        kept = self._connections.get(key)
        if kept is not None:
            # The answer before must have been read to its end for the connection to be free.
            if kept.pending is not None and not kept.pending.isclosed():
                self._drop(key)
            else:
                try:
                    return self._exchange(kept, method, target, headers, body)
                except TRANSIENT:
                    self._drop(key)
                    if body is not None and not isinstance(body, bytes):
                        raise
        kept = self._connections[key] = self._connect(parts, secure, proxy)
        try:
            return self._exchange(kept, method, target, headers, body)
        except BaseException:
            self._drop(key)
            raise

    def close(self):
        """Close every connection."""
        for key in list(self._connections):
            self._drop(key)

    def abort(self):
        """Wake whoever waits for the network, with an error; nothing is sent any more."""
        self._aborted = True
        for kept in list(self._connections.values()):
            if kept.sock is not None:
                with contextlib.suppress(OSError):
                    # Not the TLS socket's own way, which pulls the state from under the thread that reads.
                    socket.socket.shutdown(kept.sock, socket.SHUT_RDWR)

    def _exchange(self, kept, method, target, headers, body):
        if self._aborted:
            raise ConnectionAbortedError("stopped")
        if kept.connection.sock is None:
            kept.connection.timeout = min(self._timeout, CONNECT_SECONDS)
            kept.connection.connect()
            kept.sock = kept.connection.sock
            kept.sock.settimeout(self._timeout)
            self._tune(kept.sock)
        kept.connection.request(method, kept.prefix + target, body=body, headers={**kept.headers, **(headers or {})})
        kept.pending = kept.connection.getresponse()
        return kept.pending

    def _tune(self, sock):
        with contextlib.suppress(OSError, struct.error):
            if self._receive_buffer:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_RTT + 4)
                if struct.unpack_from("=I", info, _TCPI_RTT)[0] < NEAR:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)

    def _drop(self, key):
        kept = self._connections.pop(key, None)
        if kept is not None:
            kept.connection.close()

    def _connect(self, parts, context, proxy):
        if proxy is None:
            proxy = proxy_for(parts.geturl(), self._environ)
        host, port = parts.hostname, parts.port or (443 if context else 80)
        if not proxy:
            if context:
                return _Kept(http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context))
            return _Kept(http.client.HTTPConnection(host, port, timeout=self._timeout))
        via = urlsplit(proxy if "//" in proxy else "http://" + proxy)
        headers = {}
        if via.username:
            login = f"{unquote(via.username)}:{unquote(via.password or '')}"
            headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        if context:
            connection = http.client.HTTPSConnection(
                via.hostname, via.port or 3128, timeout=self._timeout, context=context)
            connection.set_tunnel(host, port, headers)
            return _Kept(connection)
        connection = http.client.HTTPConnection(via.hostname, via.port or 3128, timeout=self._timeout)
        return _Kept(connection, f"http://{parts.netloc}", headers)


class _Kept:
    """A connection with what every request on it must carry."""

    def __init__(self, connection, prefix="", headers=None):
        self.connection = connection
        self.prefix = prefix
        self.headers = headers or {}
        self.pending = None
        self.sock = None
