# SPDX-License-Identifier: MIT
"""Logging in to registries: basic authentication and the exchange of bearer tokens.

RFC 9110 for the challenges; the distribution project's "token authentication" for the exchange.
"""

import threading
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlencode

from composeapps.errors import CorruptError, RegistryError
from composeapps.oci.documents import parse_json
from composeapps.registry import address as addresses
from composeapps.registry.failures import is_page, message
from composeapps.registry.texts import clean

_MOST_ANSWER, _MOST_TOKEN = 1024 * 1024, 48 * 1024
# Secrets that are looked for in what a registry says; of those that are forgotten first, none is in use.
_SECRETS = 64


class Registry(NamedTuple):
    """A registry, or a mirror, by the name under which it is known, and where it is."""

    name: str
    origin: addresses.Origin


class Logins:
    """What registries were found to ask for, and the tokens they gave; shared by threads.

    Arguments:
        credentials: a credentials.Credentials.

    ``secrets`` are the passwords and tokens that were used so far.
    """

    def __init__(self, credentials):
        self._credentials = credentials
        self._tokens, self._basic = {}, set()
        self._lock = threading.Lock()
        self.secrets = []

    def authorization(self, registry, path, scope):
        """Return the ``Authorization`` header for a request, or None to send none.

        Arguments:
            registry: the Registry.
            path: the repository.
            scope: what is to be done, ``repository:PATH:ACTIONS``.
        """
        if token := self._tokens.get((registry, scope)):
            return f"Bearer {token}"
        if registry in self._basic and (login := self._find(registry.name, path)):
            return login.basic()
        return None

    def answer(self, challenges, registry, path, scope, refused, send):
        """Answer challenges, so that ``authorization`` has what is asked for.

        Arguments:
            challenges: challenges.Challenges, of which the strongest that can be met is taken.
            refused: the ``Authorization`` that was sent with the request.
            send: called with method, Address, whether it is the registry's own token service, the login for the
                header (or None), headers and body; returns the Response.

        Raises RegistryError when there is no login, or it is refused.
        """
        with self._lock:
            current = self.authorization(registry, path, scope)
            if current is not None and current != refused:
                # Another thread was asked too, and has answered.
                return
            self._answer(challenges, registry, path, scope, send)

    def _answer(self, challenges, registry, path, scope, send):
        login = self._find(registry.name, path)
        services = list(_services(challenges, registry))
        own = next((each for each in services if each.own), None)
        if own:
            self._exchange(own, login, registry, path, scope, send)
        elif login and not login.identity_token and any(each.scheme == "basic" for each in challenges):
            self._basic.add(registry)
        elif services:
            # Not the registry's, as far as names tell: it gets what the user has for that host, or nothing.
            service = services[0]
            self._exchange(service, self._find(service.address.origin.netloc, path), registry, path, scope, send)
        elif any(each.scheme == "basic" for each in challenges):
            raise RegistryError(f"registry {registry.name} wants a login for {path}: put one in REGISTRY_AUTH_FILE")
        elif any(each.scheme == "bearer" for each in challenges):
            raise RegistryError(f"registry {registry.name} names no token server that can be used: it has to be an "
                                "http or https address, and of a registry with https one with https")
        else:
            methods = ", ".join(clean(each.scheme, 40) for each in challenges[:5])
            raise RegistryError(f"registry {registry.name} refuses access and asks for "
                                + (f"the login method '{methods}', which is not supported" if methods else "no login"))

    def _find(self, name, path):
        login = self._credentials.find(name, path)
        if login is not None:
            self._remember(login.password, login.identity_token, login.basic().partition(" ")[2])
        return login

    def _remember(self, *secrets):
        for secret in secrets:
            # One of a letter or two would make every message unreadable, and is no secret.
            if len(secret) > 3 and secret not in self.secrets:
                self.secrets = [*self.secrets[-_SECRETS:], secret]

    def _exchange(self, service, login, registry, path, scope, send):
        query = {"scope": service.params.get("scope") or scope}
        if service.params.get("service"):
            query["service"] = service.params["service"]
        headers, body, method, basic, address = {}, None, "GET", None, service.address
        if login is not None and login.identity_token:
            method, headers["Content-Type"] = "POST", "application/x-www-form-urlencoded"
            body = urlencode({**query, "grant_type": "refresh_token", "refresh_token": login.identity_token,
                              "client_id": "composeapps"}).encode()
        else:
            mark = "&" if "?" in address.target else "?"
            address = address._replace(target=address.target + mark + urlencode(query))
            basic = login.basic() if login is not None else None
        response = send(method, address, service.own, basic, headers, body)
        what = f"the token server of registry {registry.name}"
        if not service.own:
            what += f", {service.address.origin.url},"
        if response.status != HTTPStatus.OK:
            text = message(response, self.secrets)
            if response.status == HTTPStatus.TOO_MANY_REQUESTS or response.status >= 500:
                raise ConnectionError(f"{what} answered {text}")
            if not service.own and login is None:
                host = service.address.origin.netloc
                raise RegistryError(f"{what} is at another host and refuses access to {path} ({text}): if it is to "
                                    f"have a login, put one for {host} in REGISTRY_AUTH_FILE")
            known = "refused the login" if login else "wants a login: put one in REGISTRY_AUTH_FILE"
            raise RegistryError(f"{what} {known} for {path} ({text})")
        try:
            answer = parse_json(response.read(_MOST_ANSWER), what)
        except CorruptError:
            if is_page(response):
                raise ConnectionError(f"{what} sent a web page, as a captive portal does") from None
            raise RegistryError(f"{what} sent no token") from None
        finally:
            response.close()
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not 0 < len(token) <= _MOST_TOKEN or not token.isascii() \
                or not token.isprintable():
            raise RegistryError(f"{what} sent no token")
        self._remember(token)
        self._tokens[(registry, scope)] = token


class _Service(NamedTuple):
    """A token service that a challenge names; ``own`` tells that it may have the registry's login."""

    address: addresses.Address
    params: dict
    own: bool


def _services(challenges, registry):
    home = addresses.Address(registry.origin, "/")
    for challenge in challenges:
        if challenge.scheme != "bearer" or not challenge.params.get("realm"):
            continue
        try:
            # Some give no more than a path.
            address = addresses.join(home, challenge.params["realm"], "the token server")
        except RegistryError:
            continue
        if registry.origin.scheme == "https" and address.origin.scheme != "https":
            continue
        yield _Service(address, challenge.params, addresses.belongs_to(address.origin, registry.origin))
