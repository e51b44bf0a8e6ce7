# SPDX-License-Identifier: MIT
"""HTTP for the registry client: one kept connection an origin, proxies, clear errors.

The standard library's http.client and not urllib3, because BitBake imports this and
BitBake has nothing else.
"""

import base64
import http.client
import os
import ssl
from urllib.parse import unquote, urlsplit

from composeapps.errors import RegistryError

# What a broken or slow network looks like from here: worth another try on a new connection.
TRANSIENT = (ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLEOFError)


def proxy_for(url, environ):
    """Return the proxy URL for ``url`` from the environment's usual variables, or None."""
    parts = urlsplit(url)
    raw = [item.strip() for item in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")]
    skip = [item.lstrip("*").lstrip(".") for item in raw]
    host = parts.hostname or ""
    if any(item and (host == item or host.endswith("." + item)) for item in skip) or "*" in raw:
        return None
    if host in ("localhost", "::1") or host.startswith("127."):
        return None
    names = (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((environ[name] for name in names if environ.get(name)), None)


class Transport:
    """Sends requests and keeps the connections.

    Arguments:
        timeout: seconds of silence after which a connection counts as dead.
        context: an ssl.SSLContext; the system's trust by default.
        environ: where proxies are looked up.

    Not safe for use from several threads: each takes a Transport of its own.
    """

    def __init__(self, timeout=60, context=None, environ=None):
        self._timeout = timeout
        self._context = context
        self._environ = os.environ if environ is None else environ
        self._connections = {}

    def send(self, method, url, headers=None, body=None):
        """Send one request and return the http.client.HTTPResponse, whatever its status.

        A kept connection that the peer closed in the meantime is replaced once, silently, if the
        body can be sent again. Raises the exceptions in ``TRANSIENT`` and other OSErrors.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"'{url}' is not an http or https address")
        origin = (parts.scheme, parts.netloc)
        target = parts.path or "/"
        if parts.query:
            target += "?" + parts.query
        kept = self._connections.get(origin)
        if kept is not None:
            # The answer before must have been read to its end for the connection to be free.
            if kept.pending is not None and not kept.pending.isclosed():
                self._drop(origin)
            else:
                try:
                    return self._exchange(kept, method, target, headers, body)
                except TRANSIENT:
                    self._drop(origin)
                    if body is not None and not isinstance(body, bytes):
                        raise
        kept = self._connections[origin] = self._connect(parts)
        try:
            return self._exchange(kept, method, target, headers, body)
        except BaseException:
            self._drop(origin)
            raise

    def close(self):
        """Close every connection."""
        for origin in list(self._connections):
            self._drop(origin)

    def _exchange(self, kept, method, target, headers, body):
        kept.connection.request(method, kept.prefix + target, body=body, headers={**kept.headers, **(headers or {})})
        kept.pending = kept.connection.getresponse()
        return kept.pending

    def _drop(self, origin):
        kept = self._connections.pop(origin, None)
        if kept is not None:
            kept.connection.close()

    def _connect(self, parts):
        secure = parts.scheme == "https"
        proxy = proxy_for(parts.geturl(), self._environ)
        host, port = parts.hostname, parts.port or (443 if secure else 80)
        if secure and self._context is None:
            self._context = ssl.create_default_context()
        if not proxy:
            if secure:
                return _Kept(http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context))
            return _Kept(http.client.HTTPConnection(host, port, timeout=self._timeout))
        via = urlsplit(proxy if "//" in proxy else "http://" + proxy)
        headers = {}
        if via.username:
            login = f"{unquote(via.username)}:{unquote(via.password or '')}"
            headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        if secure:
            connection = http.client.HTTPSConnection(
                via.hostname, via.port or 3128, timeout=self._timeout, context=self._context)
            connection.set_tunnel(host, port, headers)
            return _Kept(connection)
        connection = http.client.HTTPConnection(via.hostname, via.port or 3128, timeout=self._timeout)
        return _Kept(connection, f"http://{parts.netloc}", headers)


class _Kept:
    """A connection with what every request on it must carry."""

    def __init__(self, connection, prefix="", headers=None):
        self.connection = connection
        self.prefix = prefix
        self.headers = headers or {}
        self.pending = None
