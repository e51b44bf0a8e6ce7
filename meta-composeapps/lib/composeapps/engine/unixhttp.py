# SPDX-License-Identifier: MIT
"""HTTP/1.1 over a unix socket: one request on a connection of its own (RFC 9112).

Not http.client: importing it, with the parsers of mail headers and the TLS that it brings along, takes a
quarter of the time in which a command of the agent starts.
"""

import socket

_LINE = 64 * 1024
_HEADERS = 200


def exchange(path, method, target, headers=None, body=None, timeout=600, limit=None):
    """Send one request and return (status, {header in lower case: value}, content as bytes).

    Arguments:
        path: of the socket.
        method, target: of the request.
        headers: {name: value} besides those that every request has.
        body: an iterable of bytes, sent in chunks as it gives them; what it raises is passed on.
        timeout: seconds of silence until it is given up.
        limit: how many bytes of the content to read at most; all by default.

    Raises OSError when the peer cannot be reached, does not answer in time or breaks off.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
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
        with connection.makefile("rb") as stream:
            return _answer(stream, method, limit)


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


def _answer(stream, method, limit):
    status = 100
    while 100 <= status < 200:
        parts = _line(stream).split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise _broken("what answers is no HTTP server")
        status, headers = int(parts[1]), {}
        while line := _line(stream):
            name, colon, value = line.partition(b":")
            if not colon or len(headers) >= _HEADERS:
                raise _broken("the answer's header is malformed")
            headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
    if method == "HEAD" or status in (204, 304):
        return status, headers, b""
    return status, headers, _content(stream, headers, limit)


def _content(stream, headers, limit):
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _chunked(stream, limit)
    length = headers.get("content-length")
    if length is None:
        return stream.read(-1 if limit is None else limit)
    if not length.isdigit():
        raise _broken("the answer has no proper length")
    wanted = int(length) if limit is None else min(int(length), limit)
    return _exactly(stream, wanted)


def _chunked(stream, limit):
    parts, received = [], 0
    while limit is None or received < limit:
        try:
            size = int(_line(stream).partition(b";")[0], 16)
        except ValueError:
            raise _broken("the answer's chunks are malformed") from None
        if size <= 0:
            break
        wanted = size if limit is None else min(size, limit - received)
        parts.append(_exactly(stream, wanted))
        received += wanted
        if wanted == size:
            _line(stream)
    return b"".join(parts)


def _exactly(stream, count):
    data = stream.read(count)
    if len(data) != count:
        raise _broken("the connection ended in the middle of the answer")
    return data


def _line(stream):
    line = stream.readline(_LINE)
    if not line.endswith(b"\n"):
        raise _broken("the connection ended before the answer did")
    return line.rstrip(b"\r\n")


def _broken(text):
    return ConnectionResetError(text)
