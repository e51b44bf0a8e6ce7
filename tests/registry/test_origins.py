# SPDX-License-Identifier: MIT
"""Logins, certificates and authorities go to the origin that they are for, and to nobody it points to."""

import base64
import json

import pytest

from composeapps.errors import RegistryError
from composeapps.oci.digests import sha256
from composeapps.oci.reference import parse
from composeapps.registry.client import RegistryClient
from composeapps.registry.credentials import Credentials
from composeapps.registry.patience import Patience
from composeapps.registry.settings import RegistrySettings
from support.certificates import make_client_certificate, make_server_certificate
from support.scripted import Scripted, reply

MANIFEST = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
REF = parse(f"hub.test/f/web@{sha256(MANIFEST)}")
PASSWORD = "geheim&Streng"
BASIC = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    server = make_server_certificate(directory)
    return server, *make_client_certificate(directory, server)


@pytest.fixture
def client(tmp_path):
    """Makes a client that has a login for hub.test, which listens at ``url``."""
    clients = []

    def make(url, logins=("hub.test",), **settings):
        pair = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        file = tmp_path / "auth.json"
        file.write_text(json.dumps({"auths": {host: {"auth": pair} for host in logins}}))
        given = {"hub.test": RegistrySettings(url=url, **settings)}
        clients.append(RegistryClient({}, Credentials([file], {}, given), 5, environ={}, settings=given,
                                      patience=Patience(tries=1)))
        return clients[-1]

    yield make
    for each in clients:
        each.close()


def wants(*challenges):
    """Return a registry's answers that wants a login by one of ``challenges``."""
    def answer(request):
        if "authorization" in request.headers:
            return reply(200, MANIFEST)
        return reply(401, b"", *(("WWW-Authenticate", each.replace("HERE", "")) for each in challenges))
    return answer


def token(_request):
    return reply(200, json.dumps({"token": "abc.def"}).encode())


def test_a_redirect_to_another_port_gets_no_login(client):
    with Scripted(lambda _request: reply(200, MANIFEST)) as other, Scripted(
            lambda request: reply(307, b"", ("Location", other.url + "/there?sig=x"))
            if "authorization" in request.headers else reply(401, b"", ("WWW-Authenticate", 'Basic realm="x"'))) as hub:
        assert client(hub.url).manifest(REF) == MANIFEST
        assert "authorization" not in other.requests[0].headers
        assert hub.requests[1].headers["authorization"] == BASIC


def test_whom_a_redirect_leads_to_cannot_ask_for_the_login(client):
    with Scripted(wants('Basic realm="give"')) as other, Scripted(
            lambda _request: reply(302, b"", ("Location", other.url + "/there"))) as hub:
        with pytest.raises(RegistryError, match=r"redirects to http://127.* gets no login of the registry's"):
            client(hub.url).manifest(REF)
        assert len(other.requests) == 1


@pytest.mark.parametrize(("realm", "gets"), [("own", True), ("port", True), ("host", False)])
def test_a_token_service_gets_the_login_where_it_is_the_registrys(client, realm, gets):
    with Scripted(token) as same, Scripted(token, host="localhost") as foreign:
        where = {"own": "/token", "port": f"{same.url}/token", "host": f"{foreign.url}/token"}[realm]

        def answer(request):
            return token(request) if request.target.startswith("/token") else wants(f'Bearer realm="{where}"')(request)

        with Scripted(answer) as hub:
            assert client(hub.url).manifest(REF) == MANIFEST
            asked = {"own": [hub.requests[1]], "port": same.requests, "host": foreign.requests}[realm]
            assert [request.headers.get("authorization") for request in asked] == [BASIC if gets else None]
            assert hub.requests[-1].headers["authorization"] == "Bearer abc.def"


def test_a_foreign_token_service_gets_the_login_that_is_for_it(client):
    with Scripted(token, host="localhost") as foreign, Scripted(wants(f'Bearer realm="{foreign.url}/t"')) as hub:
        assert client(hub.url, logins=("hub.test", foreign.netloc)).manifest(REF) == MANIFEST
        assert foreign.requests[0].headers["authorization"] == BASIC


def test_a_foreign_token_service_that_refuses_is_named_with_the_remedy(client):
    with Scripted(lambda _request: reply(401), host="localhost") as foreign, \
            Scripted(wants(f'Bearer realm="{foreign.url}/t"')) as hub, \
            pytest.raises(RegistryError, match=rf"at another host .* put one for {foreign.netloc} in REGISTRY_AUTH"):
        client(hub.url).manifest(REF)


@pytest.mark.parametrize("challenges", [
    ['Basic realm="x", Bearer realm="/token",service="s"'], ['Bearer realm="/token",service="s"', 'Basic realm="x"'],
    ['NEGOTIATE abc==', 'bearer SERVICE="s" , ReAlM="/token"'],
    ['Digest realm="q", qop="auth,x", Bearer realm="/token"']])
def test_the_strongest_challenge_is_met_wherever_it_stands(client, challenges):
    def answer(request):
        return token(request) if request.target.startswith("/token") else wants(*challenges)(request)

    with Scripted(answer) as hub:
        assert client(hub.url).manifest(REF) == MANIFEST
        assert hub.requests[-1].headers["authorization"] == "Bearer abc.def"


@pytest.mark.parametrize(("challenges", "says"), [
    (['Bearer realm="ftp://x"'], "names no token server that can be used"), (["Negotiate"], "login method 'negotiate'"),
    ([], "asks for no login"), (["Bearer"], "names no token server"), (["\x1b[31mred"], "asks for no login")])
def test_challenges_that_cannot_be_met(client, challenges, says):
    with Scripted(wants(*challenges)) as hub, pytest.raises(RegistryError, match=says):
        client(hub.url).manifest(REF)


@pytest.mark.parametrize(("answer", "says"), [
    (reply(200, b"[]"), "sent no token"), (reply(200, b'{"token": "a\\nb"}'), "sent no token"),
    (reply(200, b'{"token": "' + b"a" * 99_999 + b'"}'), "sent no token"),
    (reply(200, b'{"token": 7}'), "sent no token"), (reply(200, b'{"tok', length=99), "ended early"),
    (reply(503), "HTTP 503"), (reply(403), "refused the login"),
    (reply(200, b"<html>", ("Content-Type", "text/html")), "sent a web page, as a captive portal does"),
], ids=["list", "line", "long", "number", "cut", "busy", "refused", "page"])
def test_token_servers_that_give_none(client, answer, says):
    def serve(request):
        return answer if request.target.startswith("/token") else wants('Bearer realm="/token"')(request)

    with Scripted(serve) as hub, pytest.raises(RegistryError, match=says) as caught:
        client(hub.url).manifest(REF)
    assert str(caught.value).isprintable()


def test_with_a_foreign_service_and_a_password_the_password_goes_to_the_registry(client):
    with Scripted(token, host="localhost") as foreign, Scripted(
            wants(f'Bearer realm="{foreign.url}/t"', 'Basic realm="x"')) as hub:
        assert client(hub.url).manifest(REF) == MANIFEST
        assert not foreign.requests and hub.requests[-1].headers["authorization"] == BASIC


def test_no_way_leads_from_tls_to_none(client, pki):
    with Scripted(token) as plain:
        for answer, says in (
                (lambda _request: reply(302, b"", ("Location", plain.url + "/x?secret=1")), "from https to http"),
                (wants(f'Bearer realm="{plain.url}/t"'), "names no token server that can be used")):
            with Scripted(answer, tls=pki[0]) as hub, pytest.raises(RegistryError, match=says) as caught:
                client(hub.url, ca_file=pki[0].ca).manifest(REF)
            assert "secret" not in str(caught.value)
        assert not plain.requests


def test_certificates_are_the_registrys_alone(client, pki):
    server, certificate, key = pki
    with Scripted(lambda _request: reply(200, MANIFEST), tls=server) as other, Scripted(
            lambda _request: reply(307, b"", ("Location", other.url + "/there")), tls=server) as hub:
        own = {"ca_file": server.ca, "cert_file": certificate, "key_file": key}
        with pytest.raises(RegistryError, match="certificate verify failed"):
            client(hub.url, **own).manifest(REF)
        assert hub.certificates[0] and not other.requests
        # What is said of the other one counts for it: its authority here, and no certificate of ours.
        trusting = client(hub.url, **own)
        trusting._registries._settings[other.netloc] = RegistrySettings(ca_file=server.ca)
        assert trusting.manifest(REF) == MANIFEST
        assert other.certificates[-1] in (None, {})


def test_the_registrys_own_token_service_is_trusted_as_it_is(client, pki):
    server, certificate, key = pki
    with Scripted(token, tls=server) as service, Scripted(
            wants(f'Bearer realm="{service.url}/t"'), tls=server) as hub:
        assert client(hub.url, ca_file=server.ca, cert_file=certificate, key_file=key).manifest(REF) == MANIFEST
        assert service.certificates[0] and service.requests[0].headers["authorization"] == BASIC


def test_a_token_server_cannot_pass_the_login_on(client):
    with Scripted(token, host="localhost") as foreign:
        def answer(request):
            if request.target.startswith("/token"):
                return reply(307, b"", ("Location", foreign.url + "/token"))
            return wants('Bearer realm="/token"')(request)

        with Scripted(answer) as hub:
            client(hub.url).manifest(REF)
            assert hub.requests[1].headers["authorization"] == BASIC
            assert "authorization" not in foreign.requests[0].headers


def test_an_identity_token_goes_nowhere_else(client, tmp_path):
    with Scripted(token, host="localhost") as foreign:
        def answer(request):
            if request.target.startswith("/token"):
                return reply(307, b"", ("Location", foreign.url + "/token"))
            return wants('Bearer realm="/token"')(request)

        with Scripted(answer) as hub:
            asking = client(hub.url)
            (tmp_path / "auth.json").write_text(json.dumps({"auths": {"hub.test": {"identitytoken": "refresh-me"}}}))
            with pytest.raises(RegistryError, match="is not to have the login: refused"):
                asking.manifest(REF)
            assert b"refresh-me" in hub.requests[1].body and not foreign.requests


@pytest.mark.parametrize("kind", ["json", "reason", "realm"])
def test_what_a_registry_repeats_of_our_secrets_is_not_shown(client, kind):
    def answer(request):
        login = request.headers.get("authorization")
        if not login:
            return reply(401, b"", ("WWW-Authenticate", 'Basic realm="x"'))
        words = f"no {PASSWORD} {login}\x1b[31m\r\n\x07\u202e"
        if kind == "json":
            return reply(403, json.dumps({"errors": [{"message": words}]}).encode())
        return f"HTTP/1.1 403 {words.splitlines()[0]}\r\nContent-Length: 0\r\n\r\n".encode()

    with Scripted(answer) as hub, pytest.raises(RegistryError, match="denies access") as caught:
        client(hub.url).manifest(REF)
    text = str(caught.value)
    assert PASSWORD not in text and BASIC.split()[1] not in text and text.isprintable()
