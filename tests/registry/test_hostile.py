# SPDX-License-Identifier: MIT
"""Registries that break the rules, and such as keep to odd ones: bounded, understood, or one sentence."""

import io
import json
import ssl
import time

import pytest

from composeapps.errors import CorruptError, NotFoundError, RegistryError
from composeapps.oci.digests import sha256
from composeapps.oci.reference import parse
from composeapps.registry import client as clients
from composeapps.registry import failures, transport
from composeapps.registry.client import RegistryClient
from composeapps.registry.credentials import Credentials
from composeapps.registry.patience import Patience
from support.certificates import make_server_certificate
from support.scripted import Scripted, reply

DATA = bytes(range(256)) * 1000
DIGEST = sha256(DATA)
REF = parse("hub.test/f/web:1")
MANIFEST = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
ONE = Patience(tries=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    return make_server_certificate(tmp_path_factory.mktemp("pki"))


def client(url, patience=ONE, timeout=5):
    return RegistryClient({"hub.test": url}, Credentials([], {}), timeout, environ={}, patience=patience)


def fails(answer, says, error=RegistryError, call=None, **options):
    """Assert that a call ends in one sentence; return (seconds that it took, bytes that were sent)."""
    started = time.monotonic()
    with Scripted(answer) as hub, pytest.raises(error, match=says) as caught:
        (call or (lambda asking: asking.manifest(REF)))(client(hub.url, **options))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
    return time.monotonic() - started, hub.sent


def blob(asking):
    return b"".join(asking.blob(REF, DIGEST, len(DATA)))


def endless(start, piece):
    def answer(_request):
        yield start
        while True:
            yield piece
    return answer


@pytest.mark.parametrize(("start", "piece", "says"), [
    (b"HTTP/1.1 500 Oh\r\n\r\n", b"x" * 65536, "failed on .*HTTP 500 Oh"),
    (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n", "denies access"),
    (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 999, "header has more than"),
    (b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 65536, "header has more than"),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "interim answer"),
    (b"", b"\x00" * 4096, "header has more than"),
    (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, "longer than the .* allowed"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 4096, "header has more than"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n", "end of trailers"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"\xff\r\n", "chunks are malformed"),
    (b"HTTP/1.1 307 Go\r\nLocation: /v2/\r\n\r\n", b"x" * 65536, "redirects in circles"),
], ids=["error", "chunked error", "headers", "one header", "interim", "zeros", "document", "chunk size", "trailers",
        "chunks", "redirect"])
def test_an_answer_without_end_ends(start, piece, says):
    seconds, sent = fails(endless(start, piece), says, (RegistryError, CorruptError))
    # What the kernel took counts as sent.
    assert seconds < 5 and sent < 40 << 20


def trickle(start, piece, pause=0.05):
    def answer(_request):
        yield start
        while True:
            time.sleep(pause)
            yield piece
    return answer


@pytest.mark.parametrize(("start", "says"), [
    (b"HTTP/1.1 200 OK\r\n", "no answer in time"),
    (b"HTTP/1.1 503 Busy\r\n\r\n", "HTTP 503 Busy"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n", "broke off .only .* bytes came in"),
], ids=["head", "error", "document"])
def test_a_trickle_does_not_last(monkeypatch, start, says):
    monkeypatch.setattr(failures, "_WORDS_SECONDS", 0.5)
    seconds, _sent = fails(trickle(start, b"a"), says, timeout=0.5)
    assert seconds < 3


def test_a_blob_that_trickles_in_is_given_up():
    length = f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode()
    seconds, _sent = fails(trickle(length, b"a"), "only .* bytes came in", call=blob, timeout=0.5)
    assert seconds < 3


@pytest.mark.parametrize(("answer", "says", "error"), [
    (reply(200, DATA, length=len(DATA) + 7), f"has {len(DATA) + 7} bytes in the registry, not", CorruptError),
    (reply(200, DATA, length=7), "has 7 bytes in the registry", CorruptError),
    (reply(200, DATA + b"more", ("Connection", "close"), ("Transfer-Encoding", "identity")), "wrong content", None),
    (reply(200, b"<html>log in", ("Content-Type", "text/html; charset=x")), "captive portal", RegistryError),
    (reply(511, b"log in"), "captive portal", RegistryError),
    (reply(200, DATA, ("Content-Encoding", "gzip")), "coding that was not asked for", RegistryError),
    (reply(200, DATA, ("Content-Length", "1"), ("Content-Length", "2")), "no proper Content-Length", RegistryError),
    (reply(204), "HTTP 204", RegistryError),
    (reply(206, DATA, ("Content-Range", "bytes 5-9/10")), "HTTP 206|bytes in the registry", RegistryError),
    (reply(416), "HTTP 416", RegistryError),
    (reply(300, b""), "HTTP 300", RegistryError),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP|answer did", RegistryError),
    (b"", "ended without an answer", RegistryError),
    (reply(404), "is not in the registry", NotFoundError),
], ids=lambda value: repr(value)[:30])
def test_what_cannot_be_the_blob_is_refused_before_it_is_kept(answer, says, error):
    if error is None:
        # Nothing says where it ends: what is over is not looked at.
        with Scripted(lambda _request: answer) as hub:
            assert blob(client(hub.url)) == DATA
        return
    _seconds, sent = fails(lambda _request: answer, says, error, call=blob)
    # A part that was not asked for is refused once, and asked for as a whole.
    assert sent <= 2 * len(answer)


def test_a_login_page_for_a_manifest_is_told_from_a_manifest():
    fails(lambda _request: reply(200, b"<html>", ("Content-Type", "text/html")), "captive portal.*open this network")


def test_a_portal_that_redirects_is_no_registry():
    def answer(request):
        if request.target == "/login":
            return reply(200, b"<html>pay here", ("Content-Type", "text/html"))
        return reply(302, b"", ("Location", "/login"))

    fails(answer, "captive portal", call=blob)


def test_a_registry_that_has_less_than_before_starts_over():
    """416 on the way: of what is there nothing can be trusted any more."""
    def answer(request):
        if "range" in request.headers:
            return reply(416, b"", ("Content-Range", "bytes */7"))
        return reply(200, DATA[:1000], length=len(DATA))

    fails(answer, "fewer bytes in the registry", CorruptError, call=blob, patience=Patience(tries=2, longest=0.01))


@pytest.mark.parametrize("refused", [405, 501])
def test_without_head_there_is_get(refused):
    with Scripted(lambda request: reply(refused) if request.method == "HEAD" else reply(200, DATA)) as hub:
        assert client(hub.url).exists(REF, "blobs", DIGEST)
    with Scripted(lambda request: reply(refused) if request.method == "HEAD" else reply(404)) as hub:
        assert not client(hub.url).exists(REF, "blobs", DIGEST)


def test_chunks_and_folded_headers_are_read():
    body = b"".join(b"%X;ext=1\r\n%s\r\n" % (len(DATA[at:at + 999]), DATA[at:at + 999])
                    for at in range(0, len(DATA), 999)) + b"0\r\nTrailer: x\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\ntransfer-encoding: Chunked\r\n\r\n" + body
    with Scripted(lambda _request: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer) as hub:
        assert blob(client(hub.url)) == DATA


class Uploads:
    """A registry that takes a blob by a way of its own.

    Arguments:
        location: where it says that the upload goes, after the server's URL for ``{url}``.
        headers: more of the first answer.
        redirect: a status with which each POST and PUT is first sent elsewhere on the same server.
    """

    def __init__(self, location=None, headers=(), redirect=None, status=202):
        self.location, self.headers, self.redirect, self.status = location, headers, redirect, status
        self.taken = None

    def __call__(self, request):
        if request.method == "HEAD":
            return reply(404)
        if self.redirect and not request.target.startswith("/moved"):
            return reply(self.redirect, b"", ("Location", "/moved" + request.target))
        if request.method == "POST":
            place = [("Location", self.location)] if self.location is not None else []
            return reply(self.status, b"", *place, *self.headers)
        self.taken = request
        return reply(201)


@pytest.mark.parametrize(("uploads", "target"), [
    (Uploads("/v2/f/web/blobs/uploads/7?_state=a%2Fb"), "/v2/f/web/blobs/uploads/7?_state=a%2Fb&digest={}"),
    (Uploads("7"), "/v2/f/web/blobs/uploads/7?digest={}"),
    (Uploads("?id=7"), "/v2/f/web/blobs/uploads/?id=7&digest={}"),
    (Uploads("/up#here"), "/up?digest={}"),
    (Uploads(None, [("Docker-Upload-UUID", "a b")]), "/v2/f/web/blobs/uploads/a%20b?digest={}"),
    (Uploads("/x", redirect=307), "/moved/x?digest={}"),
    (Uploads("/x", redirect=308), "/moved/x?digest={}"),
    (Uploads("/x", redirect=301), "/moved/x?digest={}"),
], ids=["query", "relative", "query alone", "fragment", "number", "307", "308", "301"])
def test_where_an_upload_goes(uploads, target):
    with Scripted(uploads) as hub:
        assert client(hub.url).push_blob(REF, DIGEST, len(DATA), lambda: io.BytesIO(DATA)) is True
    assert uploads.taken.target == target.format(DIGEST.replace(":", "%3A")) and uploads.taken.body == DATA


@pytest.mark.parametrize(("location", "says"), [
    ("http://127.0.0.1/up", None), ("http://127.0.0.1:{port}/up", None), ("//127.0.0.1:{port}/up", None),
    ("http://127.0.0.1:1/up", "from https to http"), ("http://localhost/up", "from https to http")])
def test_an_upload_stays_with_tls(location, says, server):
    """A registry behind a proxy that ends TLS for it does not always know that it has it."""
    uploads = Uploads()
    with Scripted(uploads, tls=server) as hub:
        uploads.location = location.format(port=hub.port)
        asking = RegistryClient({"hub.test": hub.url}, Credentials([], {}), 5, environ={}, patience=ONE,
                                context=ssl.create_default_context(cafile=server.ca))
        if says:
            with pytest.raises(RegistryError, match=says):
                asking.push_blob(REF, DIGEST, len(DATA), lambda: io.BytesIO(DATA))
        else:
            asking.push_blob(REF, DIGEST, len(DATA), lambda: io.BytesIO(DATA))
            assert uploads.taken.target.startswith("/up?digest=") and uploads.taken.body == DATA


def test_an_upload_that_needs_no_more():
    uploads = Uploads(status=201)
    with Scripted(uploads) as hub:
        assert client(hub.url).push_blob(REF, DIGEST, len(DATA), lambda: io.BytesIO(DATA)) is True
    assert uploads.taken is None


@pytest.mark.parametrize(("location", "says"), [
    (None, "named no place for it"), ("ftp://x/", "is not an http or https address"),
    ("http://[::1", "is not an http or https address")])
def test_an_upload_that_leads_nowhere(location, says):
    fails(Uploads(location), says, call=lambda asking: asking.push_blob(REF, DIGEST, 9, lambda: io.BytesIO(b"")))


def test_a_registry_that_has_heard_enough_is_heard():
    """An answer to half of an upload says why it ended."""
    def answer(request):
        return reply(404) if request.method == "HEAD" else reply(202, b"", ("Location", "/up"))

    def refuse(request):
        if request.method == "PUT":
            return reply(413, json.dumps({"errors": [{"message": "too large"}]}).encode())
        return answer(request)

    fails(refuse, "HTTP 413 .*too large",
          call=lambda asking: asking.push_blob(REF, DIGEST, len(DATA), lambda: io.BytesIO(DATA)))


@pytest.mark.parametrize("words", ["\x1b]0;title\x07", "a\r\nb\nc", "\u202egnol", "x" * 9999, "\x00\x08", " \t "])
def test_what_a_registry_says_cannot_write_on_a_terminal(words):
    body = json.dumps({"errors": [{"message": words}]}).encode()
    for status in (400, 403, 500):
        fails(lambda _request, status=status: reply(status, body), "HTTP")
    reason = words.replace("\r", " ").replace("\n", " ").encode()
    fails(lambda _request: b"HTTP/1.1 400 " + reason + b"\r\n\r\n", "HTTP 400")


def test_a_kept_connection_that_the_registry_closed_is_replaced(monkeypatch):
    with Scripted(lambda _request: reply(200, MANIFEST)) as hub:
        asking = client(hub.url)
        for _ in range(3):
            assert asking.manifest(REF.pinned(sha256(MANIFEST))) == MANIFEST
        assert len(hub.requests) == 3


def test_the_bounds_are_what_the_documentation_says():
    assert transport.TRICKLE == 3000 and clients.DOCUMENT_SECONDS == 300
