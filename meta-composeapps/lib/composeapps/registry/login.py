# SPDX-License-Identifier: MIT
"""Logging in to registries: basic authentication and the exchange of bearer tokens.

RFC 7235 for the challenge; the distribution project's "token authentication" for the exchange.
"""

import http.client
import re
import threading
from http import HTTPStatus
from urllib.parse import urlencode

from composeapps import __version__
from composeapps.errors import CorruptError, RegistryError
from composeapps.oci.documents import MAX_DOCUMENT, parse_json


class Logins:
    """What registries were found to ask for, and the tokens they gave; shared by threads.

    Arguments:
        credentials: a credentials.Credentials.
    """

    def __init__(self, credentials):
        self._credentials = credentials
        self._tokens, self._basic = {}, set()
        self._lock = threading.Lock()

    def authorization(self, host, path, scope):
        """Return the ``Authorization`` header for a request, or None to send none.

        Arguments:
            host: the registry's name.
            path: the repository.
            scope: what is to be done, ``repository:PATH:ACTIONS``.
        """
        if token := self._tokens.get((host, scope)):
            return f"Bearer {token}"
        if host in self._basic and (login := self._credentials.find(host, path)):
            return login.basic()
        return None

    def answer(self, challenge, host, path, scope, refused, send):
        """Answer a ``WWW-Authenticate`` challenge, so that ``authorization`` has what is asked for.

        Arguments:
            refused: the ``Authorization`` that was sent with the request.
            send: called with method, URL, headers and body, returns the response.

        Raises RegistryError when there is no login, or it is refused.
        """
        with self._lock:
            current = self.authorization(host, path, scope)
            if current is not None and current != refused:
                # Another thread was asked too, and has answered.
                return
            self._answer(challenge, host, path, scope, send)

    def _answer(self, challenge, host, path, scope, send):
        scheme, _, rest = challenge.partition(" ")
        login = self._credentials.find(host, path)
        if scheme.lower() == "basic":
            if login is None:
                raise RegistryError(f"registry {host} wants a login for {path}: put one in REGISTRY_AUTH_FILE")
            self._basic.add(host)
            return
        params = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or not params.get("realm"):
            raise RegistryError(f"registry {host} asks for the login method '{scheme}', which is not supported")
        query = {"scope": params.get("scope") or scope}
        if params.get("service"):
            query["service"] = params["service"]
        headers, body, method = {"User-Agent": f"composeapps/{__version__}"}, None, "GET"
        if login is not None and login.identity_token:
            method, headers["Content-Type"] = "POST", "application/x-www-form-urlencoded"
            body = urlencode({**query, "grant_type": "refresh_token", "refresh_token": login.identity_token,
                              "client_id": "composeapps"}).encode()
            url = params["realm"]
        else:
            url = params["realm"] + ("&" if "?" in params["realm"] else "?") + urlencode(query)
            if login is not None:
                headers["Authorization"] = login.basic()
        response = send(method, url, headers, body)
        what = f"the token server of registry {host}"
        if response.status != HTTPStatus.OK:
            if response.status == HTTPStatus.TOO_MANY_REQUESTS or response.status >= 500:
                raise ConnectionError(f"{what} answered HTTP {response.status}")
            known = "refused the login" if login else "wants a login: put one in REGISTRY_AUTH_FILE"
            raise RegistryError(f"{what} {known} for {path} ({message(response)})")
        data = response.read(MAX_DOCUMENT)
        answer = parse_json(data, what)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise RegistryError(f"{what} sent no token")
        self._tokens[(host, scope)] = token


def message(response):
    """Return a registry's own words for a failure, else the HTTP status."""
    status = f"HTTP {response.status} {response.reason}".strip()
    try:
        errors = parse_json(response.read(64 * 1024), "answer").get("errors")
        text = errors[0].get("message") or errors[0].get("code")
    except (CorruptError, AttributeError, IndexError, TypeError, KeyError, OSError, http.client.HTTPException):
        return status
    return f"{status}: {text}" if isinstance(text, str) and text.isprintable() else status
