# SPDX-License-Identifier: MIT
"""HTTP over a unix socket, against answers that dockerd gives and against some that no server should."""

import contextlib
import socket
import threading

import pytest

from composeapps.engine.client import Engine
from composeapps.engine.unixhttp import exchange
from composeapps.errors import EngineError


@pytest.fixture
def answer(tmp_path):
    """Return a function that has a server give one answer (bytes) and hang up; it returns the socket and what came."""
    listeners, heard = [], []

    def serve(listener, data, wait_for):
        # A client may hang up first, and the test end without one.
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            received = b""
            while wait_for not in received and (more := connection.recv(65536)):
                received += more
            heard.append(received)
            connection.sendall(data)

    def start(data, wait_for=b"\r\n\r\n"):
        path = str(tmp_path / f"{len(listeners)}.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(1)
        threading.Thread(target=serve, args=(listener, data, wait_for), daemon=True).start()
        listeners.append(listener)
        return path, heard

    yield start
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("data, expected", [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}  ", (200, b"{}  ")),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", (200, b"abcde")),
    (b"HTTP/1.1 404 Not Found\r\n\r\nuntil the end", (404, b"until the end")),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
])
def test_each_way_in_which_an_answer_ends(answer, data, expected):
    path, _heard = answer(data)
    status, _headers, content = exchange(path, "GET", "/x", timeout=20)
    assert (status, content) == expected


@pytest.mark.parametrize("data", [
    b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"HTTP/1.1 200 OK\r\nContent-Le",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
])
def test_an_answer_that_breaks_off_is_no_answer(answer, data):
    path, _heard = answer(data)
    with pytest.raises(EngineError, match="cannot be reached"):
        Engine(f"unix://{path}", timeout=20).containers()


def test_no_more_than_the_limit_is_read(answer):
    path, _heard = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n")
    assert exchange(path, "GET", "/x", timeout=20, limit=7)[2] == b"abcdefg"


def test_a_body_goes_in_chunks(answer):
    path, heard = answer(b"HTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: 0\r\n\r\n", wait_for=b"\r\n0\r\n\r\n")
    status, headers, _content = exchange(path, "POST", "/load", {"Content-Type": "a/b"}, [b"one", b"", b"two"], 20)
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert status == 200 and headers["x-one"] == "1" and body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert head.startswith(b"POST /load HTTP/1.1\r\n") and b"Content-Type: a/b" in head


def test_what_the_body_raises_is_passed_on(answer):
    path, _heard = answer(b"", wait_for=b"one\r\n")

    def broken():
        yield b"one"
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        exchange(path, "POST", "/load", body=broken(), timeout=20)
