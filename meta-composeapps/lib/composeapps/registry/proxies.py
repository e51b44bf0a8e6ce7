# SPDX-License-Identifier: MIT
"""Which proxy a request goes through, by the variables that curl, Go and Python share."""

import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from composeapps.errors import UsageError
from composeapps.registry.address import login_of, redacted


class Proxy(NamedTuple):
    """An HTTP proxy; ``login`` is ``USER:PASSWORD`` or ""."""

    host: str
    port: int
    login: str = ""

    def __str__(self):
        return f"proxy {self.host}:{self.port}"

    __repr__ = __str__


def parse_proxy(text):
    """Read a proxy's address; raises UsageError for what is none, without its login."""
    try:
        parts = urlsplit(text if "//" in text else "http://" + text)
        host, port = parts.hostname, parts.port or 80
        if not host or not host.isascii() or not host.isprintable():
            raise ValueError
    except ValueError:
        raise UsageError(f"the proxy '{redacted(text)}' is not an address of the form http://HOST[:PORT]") from None
    if parts.scheme != "http":
        raise UsageError(f"the proxy '{redacted(text)}' is none of the kind http://HOST:PORT, "
                         "the only one that is supported")
    return Proxy(host, port, login_of(parts.geturl()))


def proxy_for(origin, environ):
    """Return the Proxy for an Origin from the environment's usual variables, or None."""
    if origin.host in ("localhost", "::1") or origin.host.startswith("127."):
        return None
    if _excluded(origin, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    names = (f"{origin.scheme}_proxy", f"{origin.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    text = next((environ[name] for name in names if environ.get(name)), None)
    return parse_proxy(text.strip()) if text else None


def _excluded(origin, text):
    """Tell whether ``no_proxy`` names a host: by name, domain, address or network, each perhaps with a port."""
    number = _number(origin.host)
    for item in text.lower().split(","):
        item = item.strip()
        if item == "*":
            return True
        if number is not None and "/" in item:
            network, _, bits = item.partition("/")
            first, bits = _number(network.strip("[]")), int(bits) if bits.isdigit() and len(bits) < 4 else -1
            if first and first[0] == number[0] and 0 <= bits <= first[0]:
                shift = first[0] - bits
                if first[1] >> shift == number[1] >> shift:
                    return True
            continue
        host, colon, port = item.rpartition(":")
        if colon and port.isdigit() and ("]" in host or ":" not in host):
            if int(port[:6]) != origin.port:
                continue
            item = host
        item = item.strip("[]").lstrip("*").lstrip(".")
        if item and (origin.host == item or (number is None and origin.host.endswith("." + item))):
            return True
    return False


def _number(host):
    """Return (bits, number) of an IP address, None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            data = socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return len(data) * 8, int.from_bytes(data, "big")
    return None
