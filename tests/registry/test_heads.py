# SPDX-License-Identifier: MIT
"""The parsers of HTTP heads and of the headers that say how much and when: bounded, linear, one kind of error."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composeapps.registry import heads
from composeapps.registry.heads import ProtocolError
from composeapps.registry.patience import retry_after


def test_a_head():
    head = heads.parse_head(b"HTTP/1.1 206 Partial Content\r\nContent-Length:  7 \r\nx-a: 1\r\nX-A: 2\r\n folded\r\nE:")
    assert (head.status, head.reason, head.version) == (206, "Partial Content", 11)
    assert head.headers.get("content-length") == "7" and head.headers.all("x-A") == ["1", "2 folded"]
    assert head.headers.get("e") == "" and head.headers.get("f") is None
    assert heads.parse_head(b"HTTP/1.0 200\nA: b").version == 10


@pytest.mark.parametrize("data", [
    b"", b"SSH-2.0-OpenSSH", b"HTTP/2 200", b"HTTP/1.1 20", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 200 OK\r\nno colon",
    b"HTTP/1.1 200 OK\r\n: nameless", b"HTTP/1.1 200 OK\r\nbad name : x", "HTTP/1.1 ²00 OK".encode("latin-1"),
    b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300])
def test_what_is_no_head(data):
    with pytest.raises(ProtocolError):
        heads.parse_head(data)


@pytest.mark.parametrize(("value", "found"), [
    ("bytes 5-9/10", (5, 9, 10)), ("BYTES 0-0/*", (0, 0, None)), ("bytes 9-5/10", None), ("bytes */10", None),
    ("bytes 5-9", None), ("items 5-9/10", None), (None, None), ("bytes ²-9/10", None), ("bytes 5-" + "9" * 99, None)])
def test_content_range(value, found):
    assert heads.content_range(value) == found


@pytest.mark.parametrize(("values", "length"), [
    ([], None), (["7"], 7), (["7", "7"], 7), (["7, 7"], 7), (["7", "8"], "error"), (["-1"], "error"),
    (["0x7"], "error"), ([""], "error"), (["9" * 5000], "error"), (["١"], "error")])
def test_content_length(values, length):
    headers = heads.Headers([("Content-Length", value) for value in values])
    if length == "error":
        with pytest.raises(ProtocolError):
            heads.content_length(headers)
    else:
        assert heads.content_length(headers) == length


@given(st.binary(max_size=300) | st.builds(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail, st.binary(max_size=300)))
def test_any_bytes_are_a_head_or_one_kind_of_error(data):
    with contextlib.suppress(ProtocolError):
        head = heads.parse_head(data)
        assert 0 <= head.status < 1000
        heads.content_length(head.headers)
    with contextlib.suppress(ProtocolError):
        assert heads.chunk_size(data) >= 0


@given(st.text())
def test_any_text_is_a_time_or_none(text):
    for value in (retry_after(text), heads.seconds(text)):
        assert value is None or value >= 0
    heads.content_range(text)


@pytest.mark.parametrize("piece", [b"a", b"a: b\r\n", b"\r\n ", b":", b" ", b"\n"])
def test_time_grows_with_length_alone(piece):
    # What takes the square of this does not come to an end in any test's time.
    for data in (piece * 3_000_000, b"HTTP/1.1 200 OK\r\n" + piece * 3_000_000):
        with contextlib.suppress(ProtocolError):
            heads.parse_head(data)
        retry_after(data.decode())
        heads.content_range(f"bytes {data.decode()}")

