# SPDX-License-Identifier: MIT
"""The client of the factory's server, against a TLS server that behaves as that one does, or as a stranger would."""

import threading

import pytest

from composeapps.delivery import gateway
from composeapps.delivery.gateway import Blobs, Gateway, Refused
from composeapps.errors import CorruptError, RegistryError, UsageError
from composeapps.oci.digests import sha256
from composeapps.oci.reference import parse_pinned
from composeapps.pull.pull import registry_client
from composeapps.registry.failures import Unavailable
from support import pki
from support.updateserver import UpdateServer, drop, endless, hang, status

TIMESTAMP = b'{"signed": {}}'


@pytest.fixture
def asking(config, server):
    server.roll_out("device-1", "main", "first", {"timestamp.json": TIMESTAMP})
    with Gateway(config, timeout=1) as found:
        yield found


def test_one_connection_serves_all_and_each_request_tells_the_state(asking, server):
    asking.target, asking.apps = "lmp-5", ("shop", "web")
    assert asking.fetch("timestamp.json", 1000) == TIMESTAMP
    assert asking.fetch("2.root.json", 1000) is None
    asking.send("POST", "events", "events", b"[]")
    assert server.connections == 1 and asking.requests == 3
    for request in server.requests:
        assert request.device == "device-1"
        assert (request.headers["x-ats-tags"], request.headers["x-ats-target"],
                request.headers["x-ats-dockerapps"]) == ("main", "lmp-5", "shop,web")


def test_nothing_of_a_target_or_an_app_becomes_another_header(asking, server):
    asking.target, asking.apps = "a\r\nX-Evil: 1", ("b,c", "d\nx")
    asking.fetch("timestamp.json", 1000)
    assert "x-evil" not in server.requests[0].headers
    assert server.requests[0].headers["x-ats-dockerapps"] == "b_c,d_x"


def test_many_apps_make_no_header_that_web_servers_refuse(asking, server):
    """nginx takes a line of 8 KiB; a device whose requests it refuses cannot be mended any more."""
    asking.target, asking.apps = "t" * 9000, [f"{number:0>100}" for number in range(200)]
    asking.fetch("timestamp.json", 1000)
    told = server.requests[0].headers["x-ats-dockerapps"].split(",")
    assert told == asking.apps[:len(told)] and len(told) > 30
    assert max(len(value) for value in server.requests[0].headers.values()) < 4096


@pytest.mark.parametrize("how, text", [
    (endless, "has more than 1000 bytes"),
    (hang, "no answer in time"),
    (drop, "failed on timestamp.json"),
    (status(502, "Key rotation is not supported"), "Key rotation is not supported"),
    (status(200, "<html>", X_A="b"), None),
    (status(302, "", Location="https://elsewhere.test/"), "leads elsewhere"),
    (status(307, "", Location="http://localhost/"), "leads elsewhere"),
    (status(403, "Device(device-1) is on the denied list"), "does not let this device in"),
    (status(500, "x" * 100_000), "failed on timestamp.json"),
    (lambda handler: handler.wfile.write(b"\0\1\2nonsense\r\n\r\n"), "failed on timestamp.json"),
    (lambda handler: handler.answer(200, b"<html>", "text/html"), "a web page instead"),
], ids=range(11))
def test_a_server_that_answers_nonsense_is_named_in_a_sentence(asking, server, how, text):
    server.misbehave("timestamp", how)
    if text is None:
        # What is no metadata is for the verifier to find.
        assert asking.fetch("timestamp.json", 1000) == b"<html>"
        return
    with pytest.raises(RegistryError, match=text) as caught:
        asking.fetch("timestamp.json", 1000)
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    server.behave()
    assert asking.fetch("timestamp.json", 1000) == TIMESTAMP


def test_no_redirection_takes_the_certificate_elsewhere(asking, server, factory):
    with UpdateServer(factory) as other:
        server.misbehave("timestamp", status(302, "", Location=f"{other.url}/repo/timestamp.json"))
        with pytest.raises(RegistryError, match="leads elsewhere"):
            asking.fetch("timestamp.json", 1000)
        assert other.connections == 0


def test_other_identities_are_not_taken(config, server, factory, tmp_path):
    def ask():
        with Gateway(config, timeout=5) as found:
            return found.get("device", "this device").status

    assert ask() == 200
    # A renewed certificate of the same key is; another key of the same name is not.
    factory.identity(config.identity_dir, "device-1", key=pki.key_of(config.identity_dir))
    assert ask() == 200
    factory.identity(config.identity_dir, "device-1")
    with pytest.raises(Unavailable, match="Key rotation is not supported"):
        ask()
    factory.identity(config.identity_dir, "device-1", authority=pki.Authority("stranger"))
    with pytest.raises(Unavailable, match="not take this device's certificate"):
        ask()
    factory.identity(config.identity_dir, "device-3", before=-2 * pki.DAY, after=-pki.DAY)
    with pytest.raises(Unavailable, match="not take this device's certificate"):
        ask()
    server.denied.add("device-4")
    factory.identity(config.identity_dir, "device-4")
    with pytest.raises(Refused, match=r"device-4\) is on the denied list"):
        ask()
    for name in ("root.crt", "client.pem", "pkey.pem"):
        (config.identity_dir / name).unlink()
        with pytest.raises(UsageError, match="composeapps enroll"):
            ask()
        factory.identity(config.identity_dir, "device-5")
        (config.identity_dir / name).write_text("nonsense")
        with pytest.raises(UsageError, match="cannot be used"):
            ask()
        factory.identity(config.identity_dir, "device-5")


def test_a_server_of_another_root_gets_nothing(config, factory):
    with UpdateServer(pki.Factory()) as stranger, Gateway(config._replace(server=stranger.url)) as found:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            found.send("POST", "events", "events", b"secret")
        assert stranger.requests == []


def test_a_clock_in_1970_still_reaches_the_server_but_not_one_that_had_expired(config, factory, monkeypatch):
    """OpenSSL reads the system's clock, which a test cannot set: the certificates lie in the future instead."""
    future = pki.now() + 400 * pki.DAY
    later = factory.root.server(before=300 * pki.DAY, after=500 * pki.DAY)
    with UpdateServer(factory, later) as found:
        ahead = config._replace(server=found.url)
        with Gateway(ahead) as plain, pytest.raises(Unavailable, match="not yet valid"):
            plain.get("device", "this device")
        with Gateway(ahead, floor=future.timestamp()) as floored:
            assert floored.get("device", "this device").status == 200
        with Gateway(ahead, floor=(future + 200 * pki.DAY).timestamp()) as expired, \
                pytest.raises(RegistryError, match="expired"):
            expired.get("device", "this device")
    with UpdateServer(pki.Factory(), pki.Factory().root.server()) as stranger, \
            Gateway(config._replace(server=stranger.url), floor=future.timestamp()) as floored, \
            pytest.raises(Unavailable, match="certificate verify failed"):
        floored.get("device", "this device")


@pytest.fixture
def blobs(server, tmp_path):
    """Blobs that the server has: {digest: bytes}."""
    place = tmp_path / "served" / "blobs" / "sha256"
    place.mkdir(parents=True)
    found = {sha256(data): data for data in (b"one", b"two" * 100_000)}
    for digest, data in found.items():
        (place / digest.partition(":")[2]).write_bytes(data)
    server.stores.append(tmp_path / "served")
    return found


def _client(asking, config):
    client = registry_client(config, environ={}, place=Blobs(asking))
    client.patience = client.patience._replace(longest=0.01)
    return client


def test_blobs_come_from_the_servers_place_and_its_token_is_renewed(asking, server, config, blobs):
    client, told = _client(asking, config), []
    client.notify = told.append
    for number, (digest, data) in enumerate(blobs.items()):
        # A token is in the server's memory only.
        server.restart()
        ref = parse_pinned(f"updates.example.test/hack/shop@{digest}")
        assert b"".join(client.blob(ref, digest, len(data))) == data
        assert server.paths().count("POST /app-proxy-url") == number + 1
    response, offset = client.open_blob(ref, digest, 100)
    assert offset == 100 and response.read(10**6) == data[100:]
    assert "token=" not in "".join(told)
    # Whoever has the token has the blobs: the certificate is not shown for them.
    assert {request.device for request in server.requests if request.path.startswith("/registry")} == {None}


def test_a_place_that_gives_wrong_bytes_or_leads_elsewhere_is_refused(asking, server, config, blobs):
    digest = next(iter(blobs))
    ref = parse_pinned(f"updates.example.test/hack/shop@{digest}")

    def get():
        client = _client(asking, config)
        return b"".join(client.blob(ref, digest, 3))

    server.misbehave("/registry", status(200, "xxx"))
    with pytest.raises(CorruptError):
        get()
    server.misbehave("/registry", status(302, "", Location="https://elsewhere.test/"))
    with pytest.raises(RegistryError, match="leads elsewhere"):
        get()
    server.misbehave("/registry", status(401, "no such token"))
    with pytest.raises(RegistryError) as caught:
        get()
    token = next(iter(server.tokens))
    assert token not in str(caught.value)
    assert server.paths().count("POST /app-proxy-url") <= 12
    for text in ("https://elsewhere.test/registry?token=1", "http://localhost/registry?token=1", "\0", "", "<html>"):
        server.misbehave("/app-proxy-url", status(201, text))
        with pytest.raises(RegistryError, match="refused"):
            get()


@pytest.mark.parametrize("number", [400, 401, 403, 416, 500])
@pytest.mark.parametrize("said", [lambda path: path, lambda path: path.rpartition("=")[2]], ids=["address", "token"])
def test_a_proxy_that_repeats_the_address_does_not_tell_its_token(asking, server, config, blobs, number, said):
    server.misbehave("/registry", lambda handler: handler.answer(number, said(handler.path).encode(), "text/plain"))
    digest, told = next(iter(blobs)), []
    client = _client(asking, config)
    client.notify = told.append
    with pytest.raises((RegistryError, CorruptError)) as caught:
        b"".join(client.blob(parse_pinned(f"updates.example.test/hack/shop@{digest}"), digest, 3))
    for token in server.tokens:
        assert token not in "".join((str(caught.value), *told))


def test_a_server_without_a_place_leaves_it_to_the_registry(asking, server, config):
    server.misbehave("/app-proxy-url", status(404, "not here"))
    assert Blobs(asking).url("hub.test") == ""


def test_threads_ask_once_for_the_place(asking, server):
    place = Blobs(asking)
    threads = [threading.Thread(target=place.url, args=("hub.test",)) for _each in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert server.paths() == ["POST /app-proxy-url"]


def test_the_context_needs_tls_1_2(config):
    assert gateway.make_context(config.identity_dir).minimum_version.name == "TLSv1_2"
