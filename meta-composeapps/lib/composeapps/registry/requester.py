# SPDX-License-Identifier: MIT
"""One request to a registry: its mirrors first, with the login that it asks for, wherever it redirects to.

A registry's login, its client certificate and its authorities belong to its origin. Whom it redirects to is
spoken to as the stranger that it is, by what is known of that host; no way leads from https to http.
"""

import threading
import time
from http import HTTPStatus
from urllib.parse import quote

from composeapps import __version__
from composeapps.errors import NotFoundError, RegistryError
from composeapps.registry import address as addresses
from composeapps.registry.challenges import parse_challenges
from composeapps.registry.failures import (
    PERMANENT,
    TRANSIENT,
    Unavailable,
    is_hopeless,
    is_page,
    message,
    reason,
)
from composeapps.registry.login import Logins, Registry
from composeapps.registry.patience import retry_after

# Seconds for which a mirror that failed is not asked again.
MIRROR_REST = 60
MOST_REDIRECTS = 10
_RETRY_STATUS = {408, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}
# A registry, or what stands before it, that has no HEAD for what it has.
_NO_HEAD = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
PORTAL = ("it sent a web page instead: a captive portal, a proxy or a login page answers in the registry's place; "
          "open this network's way to the registry")


class Known:
    """What requesters share: the registries, the logins, which mirrors rest, who ever answered."""

    def __init__(self, registries, credentials):
        self.registries, self.logins = registries, Logins(credentials)
        self.resting, self.reached = {}, set()
        self.lock = threading.Lock()


class Requester:
    """Sends requests once.

    Arguments:
        known: a Known.
        transport: the transport.Transport, for one thread.
        notify: called with a line of text.
    """

    def __init__(self, known, transport, notify):
        self._known, self._transport, self._notify = known, transport, notify

    def once(self, method, ref, target, what, push=False, headers=None, body=None, direct=False):
        """Send a request to the mirrors and then to the registry; return the first good Response.

        Arguments:
            target: what follows the repository in the API's path, or an address.Address.
            what: how errors name what is asked for.
            push: whether the login has to be one that may write.
            body: see transport.Transport.send.
            direct: pass the mirrors by.

        Raises Unavailable when the registry's own failure may pass, else what its answer means.
        """
        registries = self._known.registries
        if registries.place is not None and not push and (base := registries.place.url(ref.host)):
            return self._from_place(base, method, ref, target, what, headers)
        if not push and not direct and isinstance(target, str):
            for name, base in registries.mirrors(ref.host):
                if self._known.resting.get(base, 0) > time.monotonic():
                    continue
                problem = self._try_mirror(name, base, method, ref, target, headers)
                if not isinstance(problem, str):
                    return problem
                if problem:
                    self._known.resting[base] = time.monotonic() + MIRROR_REST
                    self._notify(f"mirror {addresses.redacted(base)}: {problem}; asking registry {ref.host}")
        base = registries.base_url(ref.host)
        registry = Registry(ref.host, addresses.parse(base, f"the address of registry {ref.host}").origin)
        unreachable = f"registry {ref.host} ({addresses.redacted(base)}) cannot be reached"
        try:
            response = self._answered(registry, base, method, ref, target, push, headers, body)
        except (OSError, *TRANSIENT) as err:
            raise Unavailable(f"{unreachable}: {reason(err)}", reason(err), permanent=isinstance(err, PERMANENT),
                              hopeless=is_hopeless(err), reached=ref.host in self._known.reached) from None
        self._known.reached.add(ref.host)
        return self._accept(response, registry, ref, what)

    def _from_place(self, base, method, ref, target, what, headers):
        """Ask the place that stands for all registries; no login and no certificate of a registry's goes there."""
        place = self._known.registries.place
        where, mark, query = base.partition("?")
        address = addresses.parse(f"{where}/v2/{quote(ref.path)}/{target}{mark}{query}", "the place of the blobs")
        sent = {"User-Agent": f"composeapps/{__version__}", **(headers or {})}
        unreachable = f"{what} cannot be had from {addresses.redacted(base)}"
        try:
            response = self._transport.send(method, address, sent, None, place.context)
        except (OSError, *TRANSIENT) as err:
            raise Unavailable(f"{unreachable}: {reason(err)}", reason(err), permanent=isinstance(err, PERMANENT),
                              hopeless=is_hopeless(err), reached=True) from None
        if response.status in _REDIRECTS:
            response.close()
            raise RegistryError(f"{unreachable}: it leads elsewhere: refused")
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            text = message(response, [base, *address.secrets])
            if place.refused(base):
                raise Unavailable(f"{unreachable}: {text}", text, reached=True)
            raise RegistryError(f"{unreachable}: {text}")
        return self._accept(response, Registry(ref.host, address.origin), ref, what, [base, *address.secrets])

    def _try_mirror(self, name, base, method, ref, target, headers):
        """Return a mirror's good answer, "" when it lacks what is asked for, or what is wrong with it."""
        try:
            registry = Registry(name, addresses.parse(base, "the mirror").origin)
            response = self._answered(registry, base, method, ref, target, False, headers, None)
        except RegistryError as err:
            return str(err)
        except (OSError, *TRANSIENT) as err:
            return reason(err)
        if response.status < 300 and not is_page(response):
            return response
        if response.status < 300:
            response.close()
            return PORTAL.partition(":")[0]
        return "" if response.status == HTTPStatus.NOT_FOUND else message(response, self._known.logins.secrets)

    def _answered(self, registry, base, method, ref, target, push, headers, body):
        """Send a request to one registry or mirror, logging in when it asks for that."""
        address = target if isinstance(target, addresses.Address) else addresses.parse(
            f"{base}/v2/{quote(ref.path)}/{target}", f"the address of registry {registry.name}")
        scope = f"repository:{ref.path}:{'pull,push' if push else 'pull'}"
        logins = self._known.logins

        def ask(method):
            login = logins.authorization(registry, ref.path, scope)
            response = self._follow(method, address, registry, registry.origin, login, headers, body)
            if response.status != HTTPStatus.UNAUTHORIZED or response.address.origin != registry.origin:
                return response
            challenges = parse_challenges(response.headers.all("WWW-Authenticate"))
            response.drain()
            logins.answer(challenges, registry, ref.path, scope, login, self._token_sender(registry))
            login = logins.authorization(registry, ref.path, scope)
            return self._follow(method, address, registry, registry.origin, login, headers, body)

        response = ask(method)
        if method == "HEAD" and response.status in _NO_HEAD:
            response.close()
            response = ask("GET")
        return response

    def _token_sender(self, registry):
        """Return what sends a request to a token service: its own one is spoken to as the registry itself."""
        def send(method, address, own, login, headers, body):
            name = registry.name if own else address.origin.netloc
            return self._follow(method, address, Registry(name, address.origin), address.origin, login, headers, body,
                                stay=body is not None)
        return send

    def _send(self, name, method, address, headers, body, proxy):
        registries = self._known.registries
        return self._transport.send(method, address, headers, body, lambda: registries.context(name), proxy)

    def _follow(self, method, address, registry, home, login, headers, body, stay=False):
        """Send one request and follow its redirects.

        Arguments:
            home: the Origin to which alone ``login`` and what the registry's settings say of certificates belong.
            stay: refuse to go anywhere else, as with a body that is a secret.
        """
        registries = self._known.registries
        for _hop in range(MOST_REDIRECTS):
            own = address.origin == home
            name = registry.name if own else address.origin.netloc
            sent = {"User-Agent": f"composeapps/{__version__}", **(headers or {})}
            if login and own:
                sent["Authorization"] = login
            # Who needs a proxy for a registry needs it for that one's storage.
            proxy = registries.settings(name if registries.has(name) else registry.name).proxy
            response = self._send(name, method, address, sent, body, proxy)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            target = addresses.join(address, location, f"registry {registry.name} redirects: the address")
            if address.origin.scheme == "https" and target.origin.scheme != "https":
                response.close()
                raise RegistryError(f"registry {registry.name} redirects from https to http ({target.shown}): refused")
            if stay and target.origin != home:
                response.close()
                raise RegistryError(f"the token server {home.url} redirects to {target.shown}, which is not to have "
                                    "the login: refused")
            response.drain()
            address = target
            if response.status == HTTPStatus.SEE_OTHER and method != "HEAD":
                method, body = "GET", None
                headers = {key: value for key, value in (headers or {}).items() if not key.startswith("Content-")}
        raise RegistryError(f"registry {registry.name} redirects in circles")

    def _accept(self, response, registry, ref, what, secrets=()):
        """Return a response with a good status; turn any other into the error it means, without ``secrets``."""
        if response.status < 300:
            return response
        status, after = response.status, retry_after(response.headers.get("Retry-After"))
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return response
        # An address that was redirected to may have a login of its own, which proxies like to repeat.
        own = () if response.address.origin == registry.origin else response.address.secrets
        text = message(response, [*self._known.logins.secrets, *own, *secrets])
        failed = f"registry {ref.host} failed on {what}: {text}"
        if status in _RETRY_STATUS:
            raise Unavailable(failed, text, after, reached=True)
        if status == HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED:
            raise Unavailable(f"registry {ref.host}: {what}: {PORTAL}", text, after, reached=True)
        if status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(f"{what} is not in the registry {ref.host}")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            if response.address.origin != registry.origin:
                raise RegistryError(f"registry {ref.host} redirects to {response.address.origin.url} for {what}, which "
                                    f"denies access ({text}) and gets no login of the registry's")
            raise RegistryError(f"registry {ref.host} denies access to {ref.path} ({text}): "
                                "check the login in REGISTRY_AUTH_FILE")
        raise RegistryError(failed)
