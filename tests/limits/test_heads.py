# SPDX-License-Identifier: MIT
"""A head without end, or a challenge that is made to be slow, costs the agent at most 64 MiB and 5 seconds of CPU."""

import pytest

from support.images import sha256
from support.scripted import Scripted, reply


def _endless(piece):
    def answer(_request):
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield piece
    return answer


@pytest.mark.parametrize("answer", [
    _endless(b"X-Header: " + b"x" * 8000 + b"\r\n"), _endless(b"x" * 65536), _endless(b"\r\n\x00" * 9999),
    lambda _request: reply(401, b"", *(("WWW-Authenticate", 'Bearer a="' + '\\"' * 900 + '", ') for _ in range(30))),
    lambda _request: reply(200, b"[" * 4_000_000, ("Content-Type", "application/json")),
    lambda _request: reply(200, b'{"a":[' + b"{}," * 1_300_000 + b"{}]}", ("Content-Type", "application/json")),
], ids=["headers", "a header", "lines", "challenges", "nested", "objects"])
def test_what_costs_nothing_to_send(device, answer):
    with Scripted(answer) as hub:
        done = device.run("pull", f"{device.registry.host}/f/shop@{sha256(b'none')}",
                          endpoints=f"{device.registry.host}={hub.url}")
    assert done.within().status not in (0, 1)
    assert hub.sent < 64 << 20
