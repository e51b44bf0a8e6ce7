# SPDX-License-Identifier: MIT
"""HTTP/1.1 for the registry client: kept connections, bounded answers, clear errors.

Not http.client: that takes interim answers and trickles without end, gives memory of its own to each
piece of a body, and brings the parsers of mail along. BitBake, which imports this, has nothing else.
"""

import contextlib
import os
import ssl
import threading
import time

from composeapps.registry import heads
from composeapps.registry.address import parse
from composeapps.registry.connection import connect, proxy_headers, shutdown
from composeapps.registry.failures import TRANSIENT, EndedError, TrickleError
from composeapps.registry.proxies import parse_proxy, proxy_for

__all__ = ["TRANSIENT", "Response", "Transport"]
# A connection that brings fewer bytes than this in the seconds after which silence counts as death is dead.
TRICKLE = 3000
# Seconds for which a first piece waits for more, so that small ones are handled together.
GATHER = 0.1
# What is read of an answer that nobody wants, so that its connection can be used again.
_DRAIN, _DRAIN_SECONDS = 64 * 1024, 2
# What has to be taken within the silence that counts as death.
_SENT = 64 * 1024


class Response:
    """An answer: ``status``, ``reason``, ``headers`` (heads.Headers), ``address``, from which it came, and a body.

    ``length`` is how many bytes of the body are still to come, None when that is not known.
    """

    def __init__(self, connection, head, method, address, timeout, finished):
        self.status, self.reason, self.headers, self.address = head.status, head.reason, head.headers, address
        self._connection, self._timeout, self._finished = connection, timeout, finished
        coding = (head.headers.get("Transfer-Encoding") or "").strip().lower()
        self._chunked, self._chunk = coding == "chunked", None
        if coding not in ("", "identity", "chunked"):
            raise heads.ProtocolError("the answer is in a transfer coding that nobody asked for")
        self.length = None if self._chunked else heads.content_length(head.headers)
        kept = head.headers.has("Connection", "keep-alive") if head.version == 10 else (
            not head.headers.has("Connection", "close"))
        self._reusable = kept and (self._chunked or self.length is not None)
        self._since, self._pace, self._failure = 0, connection.waited, None
        if method == "HEAD" or head.status in (204, 304):
            self._chunked, self.length = False, 0
        if self.length == 0:
            self._end()

    def read_into(self, view, until=None):
        """Read what is there of the body, waiting for something, into ``view`` (a memoryview).

        Arguments:
            until: when to give up waiting, by the monotonic clock; after the silence that counts as death by default.

        Returns how many bytes that were, 0 at the end. Raises EndedError when the connection ends before the body,
        TimeoutError.
        """
        if self._failure:
            raise self._failure
        if self._connection is None:
            return 0
        if until is None:
            until = time.monotonic() + self._timeout
        if self._chunked and not self._chunk and not self._next_chunk(until):
            self._end()
            return 0
        room = self._chunk if self._chunked else self.length
        try:
            count = self._connection.receive(view if room is None or room >= len(view) else view[:room], until)
        except TimeoutError:
            self._check_pace(0)
            raise
        if not count:
            if room is not None:
                self._fail(EndedError("the connection ended early"))
            self._end()
            return 0
        self._check_pace(count)
        if self._chunked:
            self._chunk -= count
        elif room is not None:
            self.length -= count
            if not self.length:
                self._end()
        return count

    def gather(self, view):
        """As ``read_into``, but wait a moment for more until ``view`` is full: each piece costs, small or large."""
        count = self.read_into(view)
        until = time.monotonic() + GATHER
        while 0 < count < len(view) and self._connection is not None:
            try:
                more = self.read_into(view[count:], until)
            except TimeoutError:
                break
            except OSError as err:
                # What came before it failed counts; the next read fails.
                self._failure = err
                self.close()
                break
            if not more:
                break
            count += more
        return count

    def read(self, limit, until=None):
        """Return up to ``limit`` bytes of the body, fewer at its end only."""
        data, buffer = bytearray(), memoryview(bytearray(min(limit, 64 * 1024)))
        while len(data) < limit:
            count = self.read_into(buffer[:limit - len(data)], until)
            if not count:
                break
            data += buffer[:count]
        return bytes(data)

    def at_end(self):
        """Tell whether the body has ended, waiting for that."""
        return self.read_into(memoryview(bytearray(1))) == 0

    def drain(self):
        """Be done with an answer whose body nobody wants."""
        with contextlib.suppress(OSError):
            self.read(_DRAIN, time.monotonic() + _DRAIN_SECONDS)
        self.close()

    def close(self):
        """Be done with it; one that was not read to its end costs its connection."""
        if self._connection is not None:
            self._connection.close()
            self._finished(self._connection, False)
            self._connection = None

    def certificate(self):
        """Return the peer's certificate as ssl.SSLSocket.getpeercert does, None without TLS or when all was read."""
        read = getattr(self._connection and self._connection.sock, "getpeercert", None)
        return read() if read else None

    def _check_pace(self, count):
        self._since += count
        if (spent := self._connection.waited - self._pace) > self._timeout:
            since, self._since, self._pace = self._since, 0, self._connection.waited
            if 0 < since < TRICKLE:
                self._fail(TrickleError(f"only {since} bytes came in {spent:.0f} s"))

    def _fail(self, failure):
        self._failure = failure
        self.close()
        raise failure

    def _next_chunk(self, until):
        """Go to the next chunk; tell whether there is one."""
        if self._chunk == 0 and self._connection.line(until):
            raise heads.ProtocolError("the answer's chunks are malformed")
        self._chunk = heads.chunk_size(self._connection.line(until))
        if self._chunk:
            return True
        # What follows is trailers, up to an empty line.
        for _line in range(heads.MOST_LINES):
            if not self._connection.line(until):
                return False
        raise heads.ProtocolError("the answer has no end of trailers")

    def _end(self):
        connection, self._connection = self._connection, None
        if not self._reusable:
            connection.close()
        self._finished(connection, self._reusable)


class _Pool:
    """Connections that are free, and sessions of TLS, of a Transport and its twins."""

    def __init__(self):
        self._lock, self._free = threading.Lock(), {}
        self.sessions = {}

    def take(self, key):
        """Return a free connection or None."""
        while True:
            with self._lock:
                found = self._free.get(key)
                connection = found.pop() if found else None
            if connection is None or connection.is_fresh():
                return connection
            connection.close()

    def give(self, key, connection):
        with self._lock:
            self._free.setdefault(key, []).append(connection)

    def close(self):
        with self._lock:
            connections = [each for found in self._free.values() for each in found]
            self._free = {}
        for connection in connections:
            connection.close()


class Transport:
    """Sends requests and keeps the connections.

    Arguments:
        timeout: seconds of silence after which a connection counts as dead.
        environ: where proxies are looked up.
        receive_buffer: bytes that the kernel may hold back for us on a connection over a short way,
            None for what it likes. What lies there when the process is killed was fetched for nothing.

    Not safe for use from several threads, but for ``abort``: each takes a ``twin``.
    """

    def __init__(self, timeout=60, environ=None, receive_buffer=None):
        self._timeout = timeout
        self._environ = os.environ if environ is None else environ
        self._receive_buffer = receive_buffer
        self._pool, self._is_twin = _Pool(), False
        # What is used by an answer that was not read to its end, and what is being connected.
        self._busy, self._begun = {}, None
        self._aborted = False

    def twin(self):
        """Return a Transport for another thread that shares the connections that are free."""
        other = Transport(self._timeout, self._environ, self._receive_buffer)
        other._pool, other._is_twin = self._pool, True
        return other

    def send(self, method, address, headers=None, body=None, context=ssl.create_default_context, proxy=None):
        """Send one request and return the Response, whatever its status.

        Arguments:
            address: an address.Address, or a text.
            headers: {name: value}.
            body: bytes, or what is called for a binary file at its start; its size is in the headers then.
            context: called for the ssl.SSLContext when a connection needs one; connections are kept
                apart by it.
            proxy: the proxy's address, "" for none, None for the environment's.

        A kept connection that the peer closed in the meantime is replaced once, silently. Raises the
        exceptions in ``TRANSIENT`` and other OSErrors.
        """
        address = parse(address) if isinstance(address, str) else address
        origin = address.origin
        secure = context() if origin.scheme == "https" else None
        via = proxy_for(origin, self._environ) if proxy is None else parse_proxy(proxy) if proxy else None
        key = (origin, secure, via)
        kept = self._pool.take(key)
        if kept is not None:
            self._busy[kept] = kept.sock
            try:
                return self._exchange(kept, key, method, address, headers, body)
            except (EndedError, ConnectionError):
                if self._aborted:
                    raise
        return self._exchange(self._connect(key), key, method, address, headers, body)

    def close(self):
        """Close every connection; a twin leaves those that are free to the others."""
        for connection in list(self._busy):
            connection.close()
        self._busy.clear()
        if not self._is_twin:
            self._pool.close()

    def abort(self):
        """Wake whoever waits for the network, with an error; nothing is sent any more."""
        self._aborted = True
        for sock in (*list(self._busy.values()), self._begun):
            if sock is not None:
                shutdown(sock)

    def _connect(self, key):
        origin, secure, via = key

        def begun(sock):
            self._begun = sock
            if self._aborted:
                raise ConnectionAbortedError("stopped")

        try:
            connection = connect(origin, via, secure, self._timeout, self._receive_buffer,
                                 self._pool.sessions.get(key), begun)
            self._busy[connection] = connection.sock
            return connection
        finally:
            self._begun = None

    def _exchange(self, connection, key, method, address, headers, body):
        try:
            if self._aborted:
                raise ConnectionAbortedError("stopped")
            head = self._request(key, method, address, headers, body)
            pieces = _pieces(body)
            try:
                connection.send(head, pieces, self._timeout)
            except (BrokenPipeError, ConnectionResetError):
                if body is None:
                    raise
                # The peer has heard enough: its answer, if there is one, says why.
            finally:
                if body is not None:
                    pieces.close()
            answer = connection.head(time.monotonic() + self._timeout)
            if key[1] is not None:
                self._pool.sessions[key] = connection.sock.session
            return Response(connection, answer, method, address, self._timeout,
                            lambda connection, free: self._finished(key, connection, free))
        except BaseException:
            self._busy.pop(connection, None)
            connection.close()
            raise

    def _finished(self, key, connection, free):
        self._busy.pop(connection, None)
        if free and not self._aborted:
            self._pool.give(key, connection)
        elif free:
            connection.close()

    @staticmethod
    def _request(key, method, address, headers, body):
        origin, secure, via = key
        lines = {"Host": origin.netloc, "Accept-Encoding": "identity", **(headers or {})}
        target = address.target
        if via and secure is None:
            target = origin.url + target
            lines.update(proxy_headers(via))
        if isinstance(body, bytes):
            lines["Content-Length"] = str(len(body))
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("latin-1")


def _pieces(body):
    """Yield a body in pieces; reads a file as it goes."""
    if isinstance(body, bytes):
        yield body
    elif body is not None:
        with body() as stream:
            while data := stream.read(_SENT):
                yield data
