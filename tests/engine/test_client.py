# SPDX-License-Identifier: MIT
"""dockerd's API, spoken with stand-ins that answer as one dockerd or another does."""

import contextlib
import socket
import threading

import pytest

from composeapps.engine import client, unixhttp
from composeapps.engine.client import Engine
from composeapps.engine.names import digest_of, familiar, tag_of
from composeapps.errors import EngineError, LoadRefusedError
from composeapps.oci.reference import parse


def _answer(content=b"{}", status=200, **headers):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content


@pytest.fixture
def dockerd(tmp_path):
    """Return a function that starts a stand-in, which answers by ``reply``; it returns (Engine, requests)."""
    listeners = []

    def serve(listener, reply, heard):
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection, contextlib.suppress(OSError):
                    data = b""
                    while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
                        data += more
                    while b"chunked" in data and not data.endswith(b"0\r\n\r\n") and (more := connection.recv(65536)):
                        data += more
                    method, path = data.split(b" ", 2)[:2]
                    heard.append(f"{method.decode()} {path.decode()}")
                    for piece in reply(method.decode(), path.decode()):
                        connection.sendall(piece)

    def start(reply, version="1.44", tells=False):
        path, heard = str(tmp_path / f"{len(listeners)}.sock"), []
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(8)
        listeners.append(listener)

        def first(method, path):
            if path == "/_ping":
                return [_answer(b"OK", **({"Api_Version": version} if version else {}))]
            if tells and tuple(map(int, path.split("/")[1][1:].split("."))) > tuple(map(int, version.split("."))):
                return [_answer(b'{"message": "client version is too new"}', 400, Api_Version=version)]
            answer = reply(method, path)
            return [answer] if isinstance(answer, bytes) else answer

        threading.Thread(target=serve, args=(listener, first, heard), daemon=True).start()
        return Engine(f"unix://{path}", timeout=20), heard

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(client, "_PAUSES", (0, 0, 0))


@pytest.mark.parametrize("version, spoken", [
    ("1.52", "v1.44"), ("1.44", "v1.44"), ("1.43", "v1.43"), ("1.41", "v1.41"), ("1.9", "v1.9"), ("2.0", "v1.44"),
    (None, "v1.44"), ("nonsense", "v1.44"), ("1.²", "v1.44"),
])
def test_the_newest_version_that_both_know_is_spoken_and_asked_for_once(dockerd, version, spoken):
    engine, heard = dockerd(lambda method, path: _answer(b"[]"), version)
    assert engine.api == Engine(engine.host).api == f"/{spoken}"
    engine.containers()
    Engine(engine.host).images()
    assert {line.split("/")[1] for line in heard} - {"_ping"} == {spoken}
    assert heard.count("GET /_ping") == (1 if version else 2)


@pytest.mark.parametrize("version, spoken", [("1.52", "v1.44"), ("1.44", "v1.44"), ("1.43", "v1.43"), ("1.9", "v1.9")])
def test_a_dockerd_tells_what_it_speaks_with_its_first_answer(dockerd, version, spoken):
    engine, heard = dockerd(lambda method, path: _answer(b"[]", Api_Version=version), version, tells=True)
    for ask in (engine.containers, engine.images, Engine(engine.host).networks):
        assert ask() == []
    assert [line.split("/")[1] for line in heard] == [*(["v1.44"] if spoken != "v1.44" else []), *[spoken] * 3]


def test_what_a_dockerd_does_not_know_for_a_moment_is_asked_again_but_not_for_ever(dockerd):
    left = [3]

    def reply(_method, _path):
        left[0] -= 1
        return _answer(b'{"message": "just ending"}', 500) if left[0] > 0 else _answer(b'{"Id": "1"}')

    engine, heard = dockerd(reply)
    assert engine.container("one") == {"Id": "1"} and len(heard) == 3
    left[0] = 1000
    with pytest.raises(EngineError, match="just ending"):
        engine.remove("containers", "one")
    assert len(heard) == 7


def test_an_answer_of_any_length_takes_no_more_memory_than_it_may(dockerd, monkeypatch):
    monkeypatch.setattr(unixhttp, "LONGEST", 100_000)

    def endless(_method, path):
        yield b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 999999999999\r\n" if "networks" in path else b"") + b"\r\n"
        while True:
            yield b'"aaaaaaaaaaaaaaa' * 1000

    engine, _heard = dockerd(endless)
    for ask in (engine.containers, lambda: engine.networks("a=b")):
        with pytest.raises(EngineError, match="more than 100000 bytes"):
            ask()
    assert len("".join(engine.logs("one", 5))) <= client._LOGS


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b'"text"', b"{"])
@pytest.mark.parametrize("status", [200, 409])
def test_an_answer_that_makes_no_sense_is_an_error_of_dockerds(dockerd, content, status):
    engine, _heard = dockerd(lambda method, path: _answer(content, status))
    if (content, status) != (b'"text"', 200):
        with pytest.raises(EngineError):
            engine.container("one")


@pytest.mark.parametrize("words, refused", [
    ([b'{"status":"Loading layer","progressDetail":{"current":1}}\r\n'] * 500 + [b'{"stream":"Loaded image"}'], None),
    ([b'{"status":"Loading"}\r\n{"errorDetail":{"message":"full', b' disk"},"error":"no space left"}'], "no space"),
    ([b"x" * 300_000, b'\n{"error":"late"}\n', b"[1]\n\n7"], "late"),
])
def test_a_load_is_followed_line_by_line(dockerd, words, refused):
    def reply(method, path):
        assert method == "POST" and "/images/load" in path
        return [b"HTTP/1.1 200 OK\r\n\r\n", *words]

    engine, _heard = dockerd(reply)
    if refused is None:
        engine.load([], [])
        return
    with pytest.raises(LoadRefusedError, match=refused):
        engine.load([], [])


@pytest.mark.parametrize("given, name", [
    ("nginx", "nginx"), ("docker.io/nginx", "nginx"), ("docker.io/library/nginx", "nginx"), ("acme/tool", "acme/tool"),
    ("index.docker.io/acme/tool", "acme/tool"), ("index.docker.io/nginx", "nginx"),
    ("docker.io/a/b/c", "a/b/c"), ("docker.io/library/a/b", "library/a/b"),
    ("hub.example.com/library/nginx", "hub.example.com/library/nginx"),
    ("localhost:5000/nginx", "localhost:5000/nginx"),
])
def test_dockerd_leaves_out_what_everybody_knows(given, name):
    ref = parse(f"{given}@sha256:{'0123456789abcdef' * 4}")
    assert familiar(ref) == name
    assert tag_of(ref) == f"{name}:0123456" and digest_of(ref) == f"{name}@{ref.digest}"


