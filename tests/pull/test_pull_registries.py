# SPDX-License-Identifier: MIT
"""Registries of every kind that a pull may have to deal with: logins, certificates, mirrors, proxies."""

import functools
import inspect
import json
import os

import pytest

from composeapps.cli import config
from composeapps.errors import RegistryError, UsageError
from composeapps.pull.pull import registry_client
from composeapps.registry import settings as registryconf
from composeapps.store.store import Store
from support.certificates import make_client_certificate, make_server_certificate
from support.faults import FaultyProxy
from support.pulls import is_whole, publish_app, pull
from support.tlsgate import TlsGate


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def configured(tmp_path):
    """Makes the client that a device makes from the text of its configuration."""
    clients = []

    def make(text, **environ):
        file = tmp_path / "config.toml"
        file.write_text(text)
        client = registry_client(config.load(file), {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **environ})
        client.patience = client.patience.__class__(tries=2, longest=0.01)
        clients.append(client)
        return functools.cache(lambda: client)

    yield make
    for client in clients:
        client.close()


def section(registry, url=None, **values):
    lines = [f'[registry."{registry.host}"]', f'url = "{url or registry.url}"']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]) + "\n"


def helper(directory, name, script):
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def test_all_connections_share_one_token(token_registry, store, factory_name, configured):
    ref = publish_app(token_registry, f"{factory_name}/shop", 200_000, 100_000, 50_000, seed=factory_name)
    before = len(token_registry.tokens.requests)
    pull(ref, store, configured(section(token_registry, auth_file=str(token_registry.auth_file))))
    assert is_whole(store, ref)
    scopes = [scopes for scopes, _account in token_registry.tokens.requests[before:]]
    assert len(scopes) == len(set(scopes)) == 2, "one for the app's repository, one for its image's"


def test_a_password(auth_registry, store, factory_name, configured):
    ref = publish_app(auth_registry, f"{factory_name}/shop", 50_000, seed=factory_name)
    pull(ref, store, configured(section(auth_registry), REGISTRY_AUTH_FILE=str(auth_registry.auth_file)))
    assert is_whole(store, ref)


@pytest.mark.parametrize("how", ["section", "credHelpers", "credsStore"])
def test_a_credential_helper_is_asked_once(auth_registry, store, factory_name, configured, tmp_path, how):
    ref = publish_app(auth_registry, f"{factory_name}/shop", 50_000, seed=factory_name)
    login = json.dumps({"ServerURL": "x", "Username": auth_registry.user, "Secret": auth_registry.password})
    path = helper(tmp_path, "vault", f"cat >> {tmp_path}/asked; echo \" $1\" >> {tmp_path}/asked; echo '{login}'")
    text = section(auth_registry, **({"credential_helper": "vault"} if how == "section" else {}))
    helpers = {"credHelpers": {auth_registry.host: "vault"}} if how == "credHelpers" else {"credsStore": "vault"}
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps({} if how == "section" else helpers))
    pull(ref, store, configured(text, PATH=path))
    assert is_whole(store, ref)
    assert (tmp_path / "asked").read_text() == f"{auth_registry.host} get\n"


@pytest.mark.parametrize(("script", "error", "says"), [
    ("echo 'credentials not found in native keychain'; exit 1", RegistryError, "wants a login"),
    ("echo 'the vault is sealed'; exit 1", RegistryError, "docker-credential-vault failed .*: the vault is sealed"),
    ("echo '{}'", RegistryError, "docker-credential-vault printed no login"),
    (None, UsageError, "docker-credential-vault for registry .* is not installed"),
], ids=["unknown", "fails", "nonsense", "missing"])
def test_a_helper_that_does_not_help(auth_registry, store, factory_name, configured, tmp_path, script, error, says):
    ref = publish_app(auth_registry, f"{factory_name}/shop", 5_000, seed=factory_name)
    path = helper(tmp_path, "vault", script) if script else os.environ["PATH"]
    with pytest.raises(error, match=says):
        pull(ref, store, configured(section(auth_registry, credential_helper="vault"), PATH=path))


def test_a_private_authority(tls_registry, store, factory_name, configured):
    ref = publish_app(tls_registry, f"{factory_name}/shop", 300_000, seed=factory_name)
    with pytest.raises(RegistryError, match="certificate verify failed"):
        pull(ref, store, configured(section(tls_registry)))
    pull(ref, store, configured(section(tls_registry, ca_file=str(tls_registry.ca_file))))
    assert is_whole(store, ref)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A server's certificate, and a client's with its key."""
    directory = tmp_path_factory.mktemp("pki")
    server = make_server_certificate(directory)
    return server, *make_client_certificate(directory, server)


@pytest.mark.parametrize("how", ["section", "certs.d"])
def test_a_client_certificate(registry, store, factory_name, configured, tmp_path, monkeypatch, keys, how):
    ref = publish_app(registry, f"{factory_name}/shop", 300_000, seed=factory_name)
    server, certificate, key = keys
    with TlsGate(registry.address, server) as gate:
        with pytest.raises(RegistryError, match="cannot be reached"):
            pull(ref, store, configured(section(registry, gate.url, ca_file=str(server.ca))))
        if how == "section":
            text = section(registry, gate.url, ca_file=str(server.ca), cert_file=str(certificate), key_file=str(key))
        else:
            place = tmp_path / "certs.d" / registry.host
            place.mkdir(parents=True)
            for source, name in ((server.ca, "ca.crt"), (certificate, "client.cert"), (key, "client.key")):
                (place / name).write_bytes(source.read_bytes())
            known = inspect.signature(registryconf.Registries.__init__).parameters.values()
            monkeypatch.setattr(registryconf.Registries.__init__, "__defaults__", tuple(
                (tmp_path / "certs.d",) if each.name == "certificates" else each.default
                for each in known if each.default is not each.empty))
            text = section(registry, gate.url)
        pull(ref, store, configured(text))
        assert gate.subjects and set(map(str, gate.subjects)) == {"{'commonName': 'composeapps test device'}"}
    assert is_whole(store, ref)


def test_a_certificate_that_cannot_be_used_is_named(tls_registry, store, factory_name, configured, tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    ref = publish_app(tls_registry, f"{factory_name}/shop", 5_000, seed=factory_name)
    with pytest.raises(UsageError, match=f"the certificate {bad} for registry {tls_registry.host} cannot be used"):
        pull(ref, store, configured(section(tls_registry, ca_file=str(bad))))


@pytest.mark.parametrize("faults", [{}, {"status": 404}, {"status": 500}, {"flip_at": 100}, {"cut_after": 100_000}],
                         ids=["good", "lacks", "fails", "damages", "cuts"])
def test_mirrors_come_first_and_the_registry_last(registry, store, factory_name, configured, faults):
    ref = publish_app(registry, f"{factory_name}/shop", 300_000, 200_000, seed=factory_name)
    with FaultyProxy(registry.url, **faults) as mirror, FaultyProxy(registry.url) as own:
        pull(ref, store, configured(section(registry, own.url, mirrors=[mirror.url])))
        assert mirror.paths, "the mirror is asked first"
        assert bool(own.paths) == bool(faults and "cut_after" not in faults)
    assert is_whole(store, ref)


def test_a_mirror_that_is_down_is_left_alone(registry, store, factory_name, configured, free_port):
    ref = publish_app(registry, f"{factory_name}/shop", 50_000, seed=factory_name)
    client = configured(section(registry, mirrors=[f"http://127.0.0.1:{free_port}"]))
    told = []
    client().notify = told.append
    pull(ref, store, client)
    assert is_whole(store, ref)
    assert len([text for text in told if "Connection refused; asking registry" in text]) == 1


def test_a_proxy(registry, store, factory_name, configured):
    ref = publish_app(registry, f"{factory_name}/shop", 50_000, seed=factory_name)
    with FaultyProxy(registry.url) as proxy:
        pull(ref, store, configured(section(registry, "http://registry.invalid", proxy=proxy.url)))
        assert proxy.paths
    assert is_whole(store, ref)
    # The environment's proxy is passed by where the section says so.
    other = Store(store.root.with_name("other"))
    environ = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
    pull(ref, other, configured(section(registry, proxy=""), **environ))
    assert is_whole(other, ref)


@pytest.mark.parametrize(("text", "says"), [
    ('[registry."hub"]\nport = 5000', "unknown key 'port'; known: url, mirrors, ca_file"),
    ('[registry."hub"]\nurl = "hub:5000"', r"'url' is not an address of the form http\|https://HOST"),
    ('[registry."hub"]\nmirrors = "https://m"', "'mirrors' is not a list of addresses"),
    ('[registry."hub"]\nca_file = "ca.pem"', "'ca_file' is not an absolute path"),
    ('[registry."hub"]\ncert_file = "/c.pem"', "'cert_file' and 'key_file' go together"),
    ('[registry."hub"]\ncredential_helper = "../../bin/sh"', "'credential_helper' is not the end of a program's name"),
    ('[registry."hub"]\nproxy = "socks5://p"', "'proxy' is not an address of the form http://HOST"),
    ('[registry]\nhub = "x"', "'hub' belongs into a section of its own"),
])
def test_mistakes_in_the_configuration_are_named(tmp_path, text, says):
    file = tmp_path / "config.toml"
    file.write_text(text + "\n")
    with pytest.raises(UsageError, match=f"{file}.*{says}"):
        config.load(file)
