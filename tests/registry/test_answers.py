# SPDX-License-Identifier: MIT
"""Whole answers, as any bytes may make them: read to their end, or one kind of error; never too much or for ever."""

import io
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composeapps.registry.address import parse
from composeapps.registry.connection import Connection
from composeapps.registry.transport import Response

ADDRESS = parse("http://hub/x")
LIMIT = 4096


def read(data, method="GET"):
    """Return (status, body) of an answer that a server sends, and then closes the connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        connection = Connection(ours)
        head = connection.head(time.monotonic() + 5)
        freed = []
        answer = Response(connection, head, method, ADDRESS, 5, lambda _connection, free: freed.append(free))
        body = answer.read(LIMIT)
        answer.close()
        assert len(freed) == 1
        return answer.status, body, freed[0]


@pytest.mark.parametrize(("data", "found"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", (200, b"abc", True)),
    (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabcdef", (200, b"abc", True)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Foo, CLOSE\r\n\r\nabc", (200, b"abc", False)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", (200, b"abc", False)),
    (b"HTTP/1.1 200 OK\r\n\r\nabc", (200, b"abc", False)),
    (b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", (204, b"", True)),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0;x\r\nA: b\r\n\r\n", (200, b"abc", True)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (200, b"", True)),
    (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, b"", True)),
])
def test_answers(data, found):
    assert read(data) == found


@pytest.mark.parametrize("data", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nA:b"])
def test_answers_that_break_off(data):
    with pytest.raises(OSError):
        read(data)


_LINES = st.sampled_from([
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 C\r\n", b"Content-Length: 5\r\n", b"\r\n", b"5\r\n", b"abcde", b"\n",
    b"\x00", b"Transfer-Encoding: chunked\r\n", b"0\r\n", b"Connection: close\r\n", b" x\r\n", b"ffffffffffffffff\r\n",
    b"Content-Length: 99999999999999999999\r\n"])


@settings(deadline=2000)
@given(st.lists(_LINES | st.binary(max_size=20), max_size=12).map(b"".join), st.sampled_from(["GET", "HEAD"]))
def test_any_bytes_are_an_answer_or_one_kind_of_error(data, method):
    try:
        status, body, _free = read(data, method)
    except OSError as err:
        assert str(err)
    else:
        assert 200 <= status < 1000 and len(body) <= min(LIMIT, len(data))


@given(st.binary(max_size=2000), st.integers(1, 400))
def test_gathered_pieces_are_the_body(body, room):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        connection, out = Connection(ours), io.BytesIO()
        answer = Response(connection, connection.head(time.monotonic() + 5), "GET", ADDRESS, 5, lambda *_args: None)
        view = memoryview(bytearray(room))
        while count := answer.gather(view):
            assert count == min(room, len(body) - out.tell())
            out.write(view[:count])
        assert out.getvalue() == body


def test_what_comes_late_is_handed_on_meanwhile():
    """A piece waits for more for a moment only: what has come can be written, and survive."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        connection = Connection(ours)
        answer = Response(connection, connection.head(time.monotonic() + 5), "GET", ADDRESS, 5, lambda *_args: None)
        view = memoryview(bytearray(9))
        # Who waits for all of it gets an error when the patience of five seconds is over.
        assert answer.gather(view) == 3
        theirs.close()
        with pytest.raises(ConnectionError, match="ended early"):
            answer.gather(view)
