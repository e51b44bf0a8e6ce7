# SPDX-License-Identifier: MIT
"""A bearer-token server that docker-registry trusts (the "auth: token" kind of registry).

The token is a JWT as the distribution project's "Token Authentication Implementation"
describes it, signed with RS256 by openssl; docker-registry verifies it with the
certificate given as ``rootcertbundle``.
"""

import base64
import json
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SERVICE = "composeapps-test-registry"
ISSUER = "composeapps-test-tokens"
LIFETIME_SECONDS = 300


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class TokenServer:
    """Serves tokens on loopback; a context manager.

    :param directory: where the signing key and its certificate are made
    :param user, password: the account that may pull and push
    :param anonymous_pull: whether a client without credentials gets a token for ``pull``

    ``requests`` lists the scopes and the account (or None) of each token request, oldest first.
    """

    def __init__(self, directory, user, password, anonymous_pull=False):
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._key = directory / "token.key"
        self.certificate = directory / "token.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7",
             "-subj", f"/CN={ISSUER}", "-keyout", str(self._key), "-out", str(self.certificate)],
            check=True, capture_output=True,
        )
        der = subprocess.run(
            ["openssl", "x509", "-in", str(self.certificate), "-outform", "DER"],
            check=True, capture_output=True,
        ).stdout
        self._x5c = base64.b64encode(der).decode()
        self.user, self.password = user, password
        self.anonymous_pull = anonymous_pull
        self.requests = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def realm(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    @property
    def registry_auth(self):
        """The ``auth`` section of a docker-registry that trusts this server."""
        return {"token": {
            "realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(self.certificate),
        }}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def mint(self, account, access):
        """Return a signed token that grants ``access`` (a list of ``{type, name, actions}``)."""
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}
        claims = {
            "iss": ISSUER, "sub": account or "", "aud": SERVICE, "iat": now, "nbf": now - 10,
            "exp": now + LIFETIME_SECONDS, "jti": uuid.uuid4().hex, "access": access,
        }
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self._key)],
            input=signed.encode(), check=True, capture_output=True,
        ).stdout
        return f"{signed}.{_base64url(signature)}"

    def _grant(self, scopes, account):
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = {"pull", "push", "delete"} if account else {"pull"} if self.anonymous_pull else set()
            access.append({
                "type": kind, "name": name, "actions": [a for a in actions.split(",") if a in allowed],
            })
        return access

    def _handler(self):
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                url = urlsplit(self.path)
                query = parse_qs(url.query)
                scopes = [one for given in query.get("scope", []) for one in given.split()]
                credentials = self.headers.get("Authorization")
                account = None
                if credentials == _basic(tokens.user, tokens.password):
                    account = tokens.user
                tokens.requests.append((tuple(scopes), account))
                if url.path != "/token" or query.get("service") != [SERVICE]:
                    return self._answer(404, {"errors": [{"code": "UNKNOWN", "message": "no such service"}]})
                if credentials and not account:
                    return self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
                token = tokens.mint(account, tokens._grant(scopes, account))
                return self._answer(200, {"token": token, "expires_in": LIFETIME_SECONDS})

            def _answer(self, status, body):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format, *args):
                pass

        return Handler
