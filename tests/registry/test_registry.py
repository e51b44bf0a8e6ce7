# SPDX-License-Identifier: MIT
"""The registry client against real registries, and against a proxy for what they cannot produce."""

import io
import ssl

import pytest

from composeapps.errors import CorruptError, NotFoundError, RegistryError, UsageError
from composeapps.oci.digests import sha256
from composeapps.oci.reference import parse
from composeapps.registry.client import RegistryClient, parse_endpoints
from composeapps.registry.credentials import Credentials
from support.faults import FaultyProxy
from support.images import multi_platform, push_image

DATA = bytes(range(256)) * 8192


@pytest.fixture
def repo(registry, factory_name):
    return parse(f"{registry.host}/{factory_name}/thing:1")


def test_blob_round_trip(client, repo):
    digest = sha256(DATA)
    assert client.push_blob(repo, digest, len(DATA), lambda: io.BytesIO(DATA)) is True
    assert client.push_blob(repo, digest, len(DATA), lambda: io.BytesIO(DATA)) is False
    assert b"".join(client.blob(repo, digest, len(DATA))) == DATA
    assert b"".join(client.blob(repo, digest)) == DATA


def test_manifest_by_tag_and_digest(client, registry, repo):
    image = multi_platform()
    push_image(registry, str(repo), image)
    assert client.manifest(repo) == image.content
    assert client.manifest(repo.pinned(image.digest)) == image.content


def test_missing_things_are_named(client, repo):
    with pytest.raises(NotFoundError, match=f"{repo.repository}:1 is not in the registry"):
        client.manifest(repo)
    with pytest.raises(NotFoundError, match="blob sha256:"):
        b"".join(client.blob(repo, sha256(b"nothing")))


def test_nobody_listens(free_port):
    client = RegistryClient(endpoints={"hub.demo.test": f"http://127.0.0.1:{free_port}"})
    with pytest.raises(RegistryError, match=r"registry hub.demo.test \(http://127.0.0.1:\d+\) cannot be reached: "
                                            r"Connection refused"):
        client.manifest(parse("hub.demo.test/a/b"))


def test_unknown_host():
    with pytest.raises(RegistryError, match="registry no.such.invalid .* cannot be reached"):
        RegistryClient().manifest(parse("no.such.invalid/a/b"))


def test_basic_login(auth_registry, factory_name):
    ref = parse(f"{auth_registry.host}/{factory_name}/x:1")
    push_image(auth_registry, str(ref), multi_platform())
    endpoints = parse_endpoints(auth_registry.endpoint)
    good = RegistryClient(endpoints, Credentials([auth_registry.auth_file]))
    assert good.manifest(ref)
    with pytest.raises(RegistryError, match="wants a login .* REGISTRY_AUTH_FILE"):
        RegistryClient(endpoints, Credentials([], {})).manifest(ref)


def test_wrong_password_is_not_shown(auth_registry, tmp_path):
    from support.registries import write_auth_file

    file = write_auth_file(tmp_path / "auth.json", auth_registry.host, "user", "opensesame")
    client = RegistryClient(parse_endpoints(auth_registry.endpoint), Credentials([file]))
    with pytest.raises(RegistryError, match="denies access") as caught:
        client.manifest(parse(f"{auth_registry.host}/a/b"))
    assert "opensesame" not in str(caught.value)


def test_token_login(token_registry, factory_name):
    ref = parse(f"{token_registry.host}/{factory_name}/x:1")
    image = multi_platform()
    push_image(token_registry, str(ref), image)
    client = RegistryClient(parse_endpoints(token_registry.endpoint), Credentials([token_registry.auth_file]))
    before = len(token_registry.tokens.requests)
    assert client.manifest(ref) == image.content
    assert client.manifest(ref) == image.content
    assert len(token_registry.tokens.requests) == before + 1, "a token must be used again"
    assert client.push_blob(ref, sha256(DATA), len(DATA), lambda: io.BytesIO(DATA)) is True


def test_private_ca(tls_registry, factory_name):
    ref = parse(f"{tls_registry.host}/{factory_name}/x:1")
    push_image(tls_registry, str(ref), multi_platform())
    endpoints = parse_endpoints(tls_registry.endpoint)
    trusting = ssl.create_default_context(cafile=tls_registry.ca_file)
    assert RegistryClient(endpoints, context=trusting).manifest(ref)
    with pytest.raises(RegistryError, match="cannot be reached: .*certificate verify failed"):
        RegistryClient(endpoints).manifest(ref)


@pytest.fixture
def pushed(client, repo):
    client.push_blob(repo, sha256(DATA), len(DATA), lambda: io.BytesIO(DATA))
    return repo



def test_a_cut_transfer_goes_on_where_it_stopped(registry, pushed):
    with FaultyProxy(registry.url, cut_after=700_000, times=2) as proxy:
        client = RegistryClient({registry.host: proxy.url}, Credentials([], {}), timeout=5)
        assert b"".join(client.blob(pushed, sha256(DATA), len(DATA))) == DATA
        resumed = [r for r in proxy.ranges if r]
        assert len(resumed) == 2 and resumed[0].startswith("bytes=") and resumed[0] != "bytes=0-"
        assert proxy.body_bytes < len(DATA) * 1.2, "what had arrived must not be sent again"


def test_a_corrupted_transfer_is_noticed_before_its_end(registry, pushed):
    with FaultyProxy(registry.url, flip_at=1_000_000) as proxy:
        client = RegistryClient({registry.host: proxy.url}, Credentials([], {}), timeout=5)
        received = b""
        with pytest.raises(CorruptError, match="wrong content"):
            for chunk in client.blob(pushed, sha256(DATA), len(DATA)):
                received += chunk
        assert len(received) < len(DATA)


def test_a_blob_longer_than_promised_is_not_read_on(client, pushed):
    with pytest.raises(CorruptError, match="bytes in the registry, not 1000 as its descriptor says"):
        b"".join(client.blob(pushed, sha256(DATA), 1000))


def test_server_errors_are_tried_again(registry, pushed):
    with FaultyProxy(registry.url, status=503, times=2) as proxy:
        client = RegistryClient({registry.host: proxy.url}, Credentials([], {}), timeout=5)
        assert b"".join(client.blob(pushed, sha256(DATA), len(DATA))) == DATA


def test_a_lying_manifest_is_refused(registry, repo):
    image = multi_platform()
    push_image(registry, str(repo), image)
    with FaultyProxy(registry.url, flip_at=20) as proxy:
        client = RegistryClient({registry.host: proxy.url}, Credentials([], {}), timeout=5)
        with pytest.raises(CorruptError, match="sent a manifest whose digest is"):
            client.manifest(repo.pinned(image.digest))


@pytest.mark.parametrize("text", ["hub", "hub=", "=http://x", "hub=ftp://x", "hub=http://"])
def test_bad_endpoints(text):
    with pytest.raises(UsageError, match="is not of the form HOST="):
        parse_endpoints(text)


@pytest.mark.parametrize(
    ("content", "says"), [("[", "is not JSON"), ('{"auths":{"hub.demo.test":{"auth":"%%"}}}', "base64")])
def test_bad_auth_files_are_named(tmp_path, content, says):
    file = tmp_path / "auth.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=f"{file}.*{says}"):
        Credentials([file]).find("hub.demo.test", "a/b")


def test_longest_namespace_wins(tmp_path):
    file = tmp_path / "auth.json"
    file.write_text('{"auths":{"h.test":{"auth":"YTpi"},"h.test/factory":{"auth":"Yzpk"}}}')
    credentials = Credentials([file])
    assert credentials.find("h.test", "factory/web").username == "c"
    assert credentials.find("h.test", "other/web").username == "a"
    assert credentials.find("else.test", "factory/web") is None
