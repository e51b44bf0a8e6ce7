# SPDX-License-Identifier: MIT
"""HTTP/1.1 over a unix socket: one request on a connection of its own (RFC 9112).

Not http.client: importing it, with the parsers of mail headers and the TLS that it brings along, takes a
quarter of the time in which a command of the agent starts.
"""

import _socket  # socket makes enums of all its constants, and loads what waits for many of them
import contextlib
import io

_LINE = 64 * 1024
_HEADERS = 200
# Answers before the one that counts ("100 Continue").
_INTERIM = 10
# No answer that is to be kept whole has more bytes than this.
LONGEST = 16 * 1024 * 1024
_PIECE = 64 * 1024
_DIGITS = 20


def exchange(path, method, target, headers=None, body=None, timeout=600, limit=None, receive=None):
    """Send one request and return (status, {header in lower case: value}, content as bytes).

    Arguments:
        path: of the socket.
        method, target: of the request.
        headers: {name: value} besides those that every request has.
        body: an iterable of bytes, sent in chunks as it gives them; what it raises is passed on.
        timeout: seconds of silence until it is given up.
        limit: how many bytes of the content to read, the rest is left out; by default all, and more than
            ``LONGEST`` are an error.
        receive: called with each piece of the content as it comes, which may then be of any length; the
            content that is returned is empty.

    Raises OSError when the peer cannot be reached, is silent for too long, breaks off or says too much.
    """
    with contextlib.closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        lines = {"Host": "localhost", "Connection": "close", **(headers or {})}
        if body is not None:
            lines["Transfer-Encoding"] = "chunked"
        elif method == "POST":
            lines["Content-Length"] = "0"
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
        if body is not None:
            _send(connection, body)
        return _answer(io.BufferedReader(_Received(connection)), method, limit, receive)


class _Received(io.RawIOBase):
    """What comes over a connection, as a file."""

    def __init__(self, connection):
        self._connection = connection

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._connection.recv_into(buffer)


def _send(connection, body):
    for piece in body:
        if not piece:
            continue
        try:
            connection.sendall(b"%x\r\n" % len(piece))
            connection.sendall(piece)
            connection.sendall(b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # The peer has heard enough, because of a full disk for example: its answer says why.
            return
    try:
        connection.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        return


def _answer(stream, method, limit, receive):
    status, heads = 100, 0
    while 100 <= status < 200:
        heads += 1
        if heads > _INTERIM:
            raise _broken("the answer does not come to its point")
        parts = _line(stream).split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit() or len(parts[1]) != 3:
            raise _broken("what answers is no HTTP server")
        status, headers = int(parts[1]), {}
        while line := _line(stream):
            name, colon, value = line.partition(b":")
            if not colon or len(headers) >= _HEADERS:
                raise _broken("the answer's header is malformed")
            headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
    if method == "HEAD" or status in (204, 304):
        return status, headers, b""
    if receive is not None:
        for piece in _pieces(stream, headers):
            receive(piece)
        return status, headers, b""
    return status, headers, _content(_pieces(stream, headers), limit)


def _content(pieces, limit):
    parts, received = [], 0
    for piece in pieces:
        parts.append(piece)
        received += len(piece)
        if limit is not None and received >= limit:
            break
        if limit is None and received > LONGEST:
            raise _broken(f"the answer has more than {LONGEST} bytes")
    return b"".join(parts)[:limit]


def _pieces(stream, headers):
    """Yield the content of an answer in pieces, as they come."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        yield from _chunks(stream)
        return
    length = headers.get("content-length")
    if length is None:
        while piece := stream.read1(_PIECE):
            yield piece
        return
    # More digits than any length has take long to be read as a number.
    if not (length.isascii() and length.isdigit() and len(length) < _DIGITS):
        raise _broken("the answer has no proper length")
    yield from _exactly(stream, int(length))


def _chunks(stream):
    while True:
        text = _line(stream).partition(b";")[0].strip()
        try:
            size = int(text, 16) if text.isalnum() and len(text) < _DIGITS else -1
        except ValueError:
            size = -1
        if size < 0:
            raise _broken("the answer's chunks are malformed")
        if size == 0:
            return
        yield from _exactly(stream, size)
        _line(stream)


def _exactly(stream, count):
    while count:
        piece = stream.read1(min(count, _PIECE))
        if not piece:
            raise _broken("the connection ended in the middle of the answer")
        count -= len(piece)
        yield piece


def _line(stream):
    line = stream.readline(_LINE)
    if not line.endswith(b"\n"):
        raise _broken("the connection ended before the answer did")
    return line.rstrip(b"\r\n")


def _broken(text):
    return ConnectionResetError(text)
