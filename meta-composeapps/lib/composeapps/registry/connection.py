# SPDX-License-Identifier: MIT
"""One connection to a registry, perhaps through a proxy and perhaps with TLS.

The socket does not block: whoever reads waits for it here, so that each wait has its end and
what trickles in can be told from what flows.
"""

import base64
import contextlib
import select
import socket
import ssl
import struct
import time

from composeapps.registry import heads
from composeapps.registry.failures import EndedError
from composeapps.registry.texts import clean, scrub

# A connection that takes longer to come about does not.
CONNECT_SECONDS = 15
# Below this round-trip time, in microseconds, a small receive buffer costs no speed.
NEAR = 5000
# linux/tcp.h: where tcpi_rtt (u32, microseconds) lies in struct tcp_info.
_TCPI_RTT = 68
_READ = 16 * 1024
# Answers like "100 Continue" before the one that counts.
_INTERIM = 5
_WANT_READ = (BlockingIOError, ssl.SSLWantReadError)


class Connection:
    """A connection; made by ``connect``.

    ``waited`` are the seconds that went by until something came, in sum.
    """

    def __init__(self, sock):
        self.sock = sock
        self.waited = 0.0
        # Read already, and not used yet.
        self._rest = b""
        self._poll = select.poll()
        sock.settimeout(0)

    def send(self, head, body, timeout):
        """Send a request.

        Arguments:
            head: bytes.
            body: an iterable of bytes-like pieces.
            timeout: seconds for each piece.
        """
        self.sock.settimeout(timeout)
        try:
            self.sock.sendall(head)
            for piece in body:
                self.sock.sendall(piece)
        finally:
            with contextlib.suppress(OSError):
                self.sock.settimeout(0)

    def receive(self, view, until):
        """Read what comes into ``view``, waiting for it; return how many bytes, 0 at the end of the connection.

        Raises TimeoutError when nothing comes until ``until``, by the monotonic clock.
        """
        if self._rest:
            part, self._rest = self._rest[:len(view)], self._rest[len(view):]
            view[:len(part)] = part
            return len(part)
        while True:
            try:
                return self.sock.recv_into(view)
            except _WANT_READ:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            now = time.monotonic()
            if now >= until:
                raise TimeoutError("timed out")
            self._poll.register(self.sock, event)
            self._poll.poll(max((until - now) * 1000, 1))
            self.waited += time.monotonic() - now

    def head(self, until):
        """Return the Head of the next answer; raises EndedError, ProtocolError, TimeoutError."""
        for _interim in range(_INTERIM + 1):
            head = heads.parse_head(self._until_empty_line(until))
            if head.status >= 200:
                return head
        raise heads.ProtocolError("what answers sends one interim answer after the other")

    def line(self, until, limit=1024):
        """Return the next line (bytes) without its end."""
        return self._take(lambda data, start: _after(data, b"\n", start), until, limit).rstrip(b"\r\n")

    def _until_empty_line(self, until):
        return self._take(_head_end, until, heads.MOST_BYTES).rstrip(b"\r\n")

    def _take(self, find, until, limit):
        """Return the bytes up to where ``find`` says, called with all and where to begin; keep the rest."""
        data, start = bytearray(self._rest), 0
        self._rest = b""
        buffer = memoryview(bytearray(_READ))
        while not (end := find(data, start)):
            if len(data) > limit:
                raise heads.ProtocolError(f"the answer's header has more than {limit} bytes")
            # The end may have begun in the bytes before.
            start = max(len(data) - 3, 0)
            count = self.receive(buffer, until)
            if not count:
                raise EndedError("the connection ended before the answer did" if data else
                                 "the connection ended without an answer")
            data += buffer[:count]
        if end > limit:
            raise heads.ProtocolError(f"the answer's header has more than {limit} bytes")
        self._rest = bytes(data[end:])
        return bytes(data[:end])

    def is_fresh(self):
        """Tell whether a connection that was kept is of use: nobody has ended it, or sent what was not asked for."""
        if self._rest:
            return False
        self._poll.register(self.sock, select.POLLIN)
        return not self._poll.poll(0)

    def shutdown(self):
        """Have whoever waits here in another thread wake up."""
        shutdown(self.sock)

    def close(self):
        """End it."""
        self.sock.close()


def shutdown(sock):
    """End both directions of a socket that another thread may be using."""
    with contextlib.suppress(OSError):
        # Not the TLS socket's own way, which pulls the state from under the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _after(data, what, start):
    return data.find(what, start) + len(what) if data.find(what, start) >= 0 else 0


def _head_end(data, start):
    ends = [end for end in (_after(data, b"\n\r\n", start), _after(data, b"\n\n", start)) if end]
    return min(ends, default=0)


def connect(origin, proxy, context, timeout, receive_buffer=None, session=None, begun=lambda sock: None):
    """Return a Connection to an Origin.

    Arguments:
        proxy: the Proxy, or None.
        context: the ssl.SSLContext for https.
        timeout: seconds of silence.
        receive_buffer: see transport.Transport.
        session: an ssl.SSLSession of a connection before.
        begun: called with each socket that is tried, before anything else.

    Raises OSError.
    """
    seconds = min(timeout, CONNECT_SECONDS)
    try:
        sock = _dial(proxy.host if proxy else origin.host, proxy.port if proxy else origin.port, seconds, begun)
    except OSError as err:
        if proxy and not isinstance(err, TimeoutError):
            err.strerror = f"{proxy}: {err.strerror or err}"
        raise
    try:
        if origin.scheme == "https":
            if proxy:
                _tunnel(sock, origin, proxy, seconds)
            sock.settimeout(seconds)
            sock = context.wrap_socket(sock, server_hostname=origin.host, session=session,
                                       do_handshake_on_connect=False)
            begun(sock)
            sock.do_handshake()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _tune(sock, receive_buffer)
        return Connection(sock)
    except BaseException:
        sock.close()
        raise


def _dial(host, port, seconds, begun):
    failure = OSError(f"{host} has no address")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"{clean(host)} is no name of a host") from None
    for family, kind, protocol, _name, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            begun(sock)
            sock.settimeout(seconds)
            sock.connect(address)
            return sock
        except OSError as err:
            failure = err
            sock.close()
    raise failure


def proxy_headers(proxy):
    """Return the header with which we log in to a proxy."""
    if not proxy or not proxy.login:
        return {}
    return {"Proxy-Authorization": "Basic " + base64.b64encode(proxy.login.encode()).decode()}


def _tunnel(sock, origin, proxy, seconds):
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    lines = [f"CONNECT {host}:{origin.port} HTTP/1.1", f"Host: {host}:{origin.port}",
             *(f"{name}: {value}" for name, value in proxy_headers(proxy).items())]
    plain = Connection(sock)
    plain.send("\r\n".join([*lines, "", ""]).encode(), (), seconds)
    head = plain.head(time.monotonic() + seconds)
    if head.status != 200:
        words = clean(scrub(head.reason, [proxy.login, proxy.login.partition(":")[2]]), 80)
        wants = " (it wants a login: http://USER:PASSWORD@HOST:PORT)" if head.status == 407 else ""
        raise ConnectionError(f"{proxy} refuses the way to {host}:{origin.port}: HTTP {head.status} {words}{wants}")


def _tune(sock, receive_buffer):
    with contextlib.suppress(OSError, struct.error):
        if receive_buffer:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_RTT + 4)
            if struct.unpack_from("=I", info, _TCPI_RTT)[0] < NEAR:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
