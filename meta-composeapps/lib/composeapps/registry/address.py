# SPDX-License-Identifier: MIT
"""Addresses of registries and of what they point to, and the origins to which logins and certificates belong."""

from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from composeapps.errors import RegistryError
from composeapps.registry.texts import clean

PORTS = {"http": 80, "https": 443}
# Longer ones are no addresses of registries; presigned ones have a few hundred characters.
_LONGEST = 16 * 1024
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._:")
# What may stand in a path and a query as it is (RFC 3986); all else is written as %XX.
_PATH = "!$&'()*+,;=:@/%-._~?"


class Origin(NamedTuple):
    """Scheme, host in lower case and port: who is asked (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self):
        """The host as a header names it, with the port where that is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self):
        return f"{self.scheme}://{self.netloc}"


# Characters that the value of a query has at least when it is as good as a login.
_SECRET = 8


class Address(NamedTuple):
    """An http or https address: its Origin, and the path with the query as a request names them."""

    origin: Origin
    target: str

    def __str__(self):
        return self.origin.url + self.target

    @property
    def shown(self):
        """The address as messages may have it: a query may be as good as a login."""
        path, mark, _query = self.target.partition("?")
        return self.origin.url + path + ("?…" if mark else "")

    @property
    def secrets(self):
        """What of it messages may not have: the query, and the values in it that are long enough to be a login."""
        query = self.target.partition("?")[2]
        values = [each.partition("=")[2] for each in query.split("&")]
        return [query, *(value for value in values if len(value) >= _SECRET)]


def parse(text, what="the address"):
    """Return the Address that ``text`` is; a login in it is left out.

    Raises RegistryError, which names ``what`` and no more of the text than can be shown.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError
        parts = urlsplit(text.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
        if not host.isascii():
            host = host.encode("idna").decode()
        if parts.scheme not in PORTS or not host or len(host) > 255 or not _HOST.issuperset(host) or port == 0:
            raise ValueError
        if any(len(label) > 63 for label in host.split(".")):
            raise ValueError
    except ValueError:
        raise RegistryError(f"{what} '{redacted(text)}' is not an http or https address") from None
    target = quote(parts.path or "/", safe=_PATH)
    if parts.query:
        target += "?" + quote(parts.query, safe=_PATH)
    return Address(Origin(parts.scheme, host, port or PORTS[parts.scheme]), target)


def join(base, location, what="the address"):
    """Return the Address that ``location`` means in an answer to a request for the Address ``base``."""
    try:
        return parse(urljoin(str(base), clean_location(location)), what)
    except ValueError:
        raise RegistryError(f"{what} '{redacted(location)}' is not an http or https address") from None


def clean_location(text):
    """Return a ``Location`` without the white space around it and without its fragment."""
    return text.strip().partition("#")[0]


def redacted(text):
    """Return an address as a message may have it: without login and query, and not endless."""
    scheme, slashes, rest = text.partition("://")
    if not slashes or not scheme.isalnum():
        scheme, slashes, rest = "", "", text
    # What is malformed may have its login anywhere before an @.
    rest, mark, _query = rest.rpartition("@")[2].partition("?")
    return clean(f"{scheme}{slashes}{rest}{'?…' if mark else ''}", 200)


def login_of(text):
    """Return the ``USER:PASSWORD`` that an address carries, or ""."""
    parts = urlsplit(text)
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""


def belongs_to(service, registry):
    """Tell whether an Origin is a token service of the registry at another Origin, as far as names tell.

    It is where the host is the registry's, one below it, or a neighbour's: ``auth.docker.io`` of
    ``registry-1.docker.io``, ``gitlab.example.com`` and ``example.com`` of ``registry.example.com``. Never does one
    without TLS belong to a registry that has it.
    """
    if registry.scheme == "https" and service.scheme != "https":
        return False
    if service.host == registry.host:
        return True
    if registry.host.replace(".", "").isdigit() or ":" in registry.host:
        return False
    if service.host.endswith("." + registry.host):
        return True
    domain = registry.host.partition(".")[2]
    return "." in domain and (service.host == domain or service.host.endswith("." + domain))
