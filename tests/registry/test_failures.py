# SPDX-License-Identifier: MIT
"""Failures of the network in words: whose they are, and what helps."""

import ssl
import time

import pytest

from composeapps.errors import RegistryError
from composeapps.oci.reference import parse
from composeapps.registry import connection, failures
from composeapps.registry.address import parse as address
from composeapps.registry.client import RegistryClient
from composeapps.registry.credentials import Credentials
from composeapps.registry.patience import Patience
from composeapps.registry.transport import Transport
from support.certificates import make_server_certificate
from support.scripted import Scripted, reply

REF = parse("hub.test/f/web:1")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    return make_server_certificate(tmp_path_factory.mktemp("pki"))


def failing(url, **environ):
    client = RegistryClient({"hub.test": url}, Credentials([], {}), 5, environ=environ, patience=Patience(tries=1))
    with pytest.raises(RegistryError) as caught:
        client.manifest(REF)
    assert str(caught.value).isprintable() and "hidden" not in str(caught.value)
    return str(caught.value)


def _unverified(code, words):
    err = ssl.SSLCertVerificationError(1, "certificate verify failed")
    err.verify_code, err.verify_message = code, words
    return err


def test_a_clock_that_is_behind_is_named_and_waited_for(monkeypatch):
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((1970, 1, 1, 0, 3, 0, 3, 1, 0)))
    early = _unverified(9, "certificate is not yet valid")
    assert failures.reason(early) == ("certificate verify failed: certificate is not yet valid; the clock here says "
                                      "1970-01-01 00:03 UTC: set it if that is wrong")
    assert not failures.is_hopeless(early)
    late = _unverified(10, "certificate has expired")
    assert "has expired; the clock here says 1970" in failures.reason(late) and failures.is_hopeless(late)
    assert failures.reason(_unverified(18, "self\x1b signed")) == "certificate verify failed: self signed"


def test_tls_and_none_are_told_apart(registry):
    assert "does not speak TLS" in failing(registry.url.replace("http:", "https:"))
    answer = reply(400, b"Client sent an HTTP request\nto", ("Content-Type", "text/plain"))
    with Scripted(lambda _request: answer) as hub:
        assert failing(hub.url).endswith("HTTP 400 Whatever: Client sent an HTTP request")


def test_a_proxy_that_fails_is_named(free_port):
    login = "http://me:hidden@127.0.0.1"
    assert f"proxy 127.0.0.1:{free_port}: Connection refused" in failing(
        "https://registry.invalid", https_proxy=f"{login}:{free_port}")

    def refuse(request):
        return f"HTTP/1.1 407 {request.headers['proxy-authorization']} hidden\r\n\r\n".encode()

    with Scripted(refuse) as proxy:
        text = failing("https://registry.invalid", HTTPS_PROXY=f"{login}:{proxy.port}")
        assert f"proxy 127.0.0.1:{proxy.port} refuses the way to registry.invalid:443: HTTP 407" in text
        assert "it wants a login" in text and proxy.requests[0].target == "registry.invalid:443"


def test_a_proxy_without_end_ends():
    def endless(_request):
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield b"X: y\r\n" * 1000

    with Scripted(endless) as proxy:
        assert "header has more than" in failing("https://registry.invalid", all_proxy=f"http://127.0.0.1:{proxy.port}")


def test_a_session_of_tls_is_taken_up_again(server, monkeypatch):
    """A second connection to the same place costs no second exchange of keys."""
    made = []
    monkeypatch.setattr("composeapps.registry.transport.connect",
                        lambda *args: made.append(connection.connect(*args)) or made[-1])
    context = ssl.create_default_context(cafile=server.ca)
    transport = Transport(5, {})
    with Scripted(lambda _request: reply(200, b"x"), tls=server) as hub:
        for each in (transport, transport.twin()):
            answer = each.send("GET", address(hub.url), context=lambda: context)
            reused = made[-1].sock.session_reused
            assert answer.read(9) == b"x"
        assert len(made) == 2 and reused
    transport.close()
