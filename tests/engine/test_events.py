# SPDX-License-Identifier: MIT
"""The stream of what happens to containers, from a stand-in for dockerd."""

import contextlib
import json
import socket
import threading

import pytest

from composeapps.engine.client import Engine
from composeapps.engine.events import Events
from composeapps.errors import EngineError

_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@contextlib.contextmanager
def _dockerd(tmp_path, *pieces):
    """Give (the Engine of a server that says some pieces, each when ``go_on`` is set for it; ``go_on``; its requests).
    """
    go_on, asked = [threading.Event() for _piece in pieces], []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def serve():
            # The first asks for the version.
            with contextlib.suppress(OSError):
                for answer in (None, pieces):
                    connection, _address = listening.accept()
                    with connection:
                        asked.append(connection.recv(65536).decode())
                        if answer is None:
                            connection.sendall(b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 0\r\n\r\n")
                        for piece, gate in zip(answer or (), go_on, strict=False):
                            assert gate.wait(60)
                            connection.sendall(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Engine(f"unix://{tmp_path}/s"), go_on, asked
    thread.join(60)


def _event(action):
    return json.dumps({"Action": action, "Actor": {"ID": "c1"}}).encode() + b"\n"


def test_events_are_told_as_they_come_however_they_are_cut(tmp_path):
    whole = _event("die") + _event("start")
    with _dockerd(tmp_path, _HEAD + whole[:10], whole[10:], b"") as (engine, go_on, asked):
        go_on[0].set()
        with Events(engine, "a=b", ("die", "start")) as events:
            assert events.wait(0) == []
            go_on[1].set()
            assert [each["Action"] for each in events.wait(60)] == ["die", "start"]
            assert events.wait(0) == []
            go_on[2].set()
            with pytest.raises(EngineError, match="it ended"):
                events.wait(60)
    assert asked[1].startswith("GET /v1.44/events?since=") and "a%3Db" in asked[1] and " HTTP/1.0\r\n" in asked[1]


@pytest.mark.parametrize("answer, words", [
    (b"HTTP/1.0 500 Internal Server Error\r\n\r\n{}", "500 Internal"), (b"", "it ended"), (b"HTTP/1.0 200", "it ended"),
])
def test_what_gives_no_stream_is_an_error(tmp_path, answer, words):
    with _dockerd(tmp_path, answer) as (engine, go_on, _asked):
        go_on[0].set()
        with pytest.raises(EngineError, match=words):
            Events(engine, "a=b", ("die",))


@pytest.mark.parametrize("said", [b"no JSON\n", b"[" * 100000 + b"\n", b"[1]\n"])
def test_what_are_no_events_is_an_error(tmp_path, said):
    with _dockerd(tmp_path, _HEAD, said) as (engine, go_on, _asked):
        go_on[0].set()
        go_on[1].set()
        with Events(engine, "a=b", ("die",)) as events, pytest.raises(EngineError, match="JSON"):
            events.wait(60)


def test_a_dockerd_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(EngineError):
        Events(Engine(f"unix://{tmp_path}/nowhere"), "a=b", ("die",))
