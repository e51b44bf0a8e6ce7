# SPDX-License-Identifier: MIT
"""What is known of each registry: where it listens, its mirrors, certificates, proxy and logins.

From sections of the configuration, ``[registry."HOST"]``, HOST being the name with its port as references have it,
with KEYS, and from the directories that Docker and Podman use, ``certs.d/HOST/`` with ``*.crt`` (authorities),
``*.cert`` and ``*.key`` (a client's pair). A section's files win over those. A mirror is a registry
too: what is said of its HOST holds for it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from composeapps.errors import UsageError
from composeapps.keys import PATH, Key, Kind, checked

CERTIFICATES = (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"))


class RegistrySettings(NamedTuple):
    """One registry's section; KEYS tells what each field means. Empty means: as by default."""

    url: str = ""
    mirrors: tuple = ()
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    proxy: str | None = None
    credential_helper: str = ""
    auth_file: Path | None = None


def _url(value, schemes=("http", "https"), login=False):
    """Return an address without a slash at its end; raises ValueError."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        good = parts is not None and parts.scheme in schemes and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"is not an address of the form {'|'.join(schemes)}://HOST[:PORT]")
    if parts.username is not None and not login:
        raise ValueError("has a login in it: put that in auth_file")
    return value.rstrip("/")


def _urls(value):
    if not isinstance(value, list):
        raise ValueError
    return tuple(map(_url, value))


def _proxy(value):
    if not isinstance(value, str):
        raise ValueError
    return _url(value if "//" in value else f"http://{value}", ("http",), login=True) if value else ""


def _helper(value):
    if not isinstance(value, str) or not value.replace("-", "").replace("_", "").isalnum():
        raise ValueError
    return value


_ADDRESS = Kind("an address", "http|https://HOST[:PORT]", _url)
_ADDRESSES = Kind("a list of addresses", "", _urls)
_PROXY = Kind("an address", "http://HOST[:PORT], or empty", _proxy)
_HELPER = Kind("the end of a program's name,", "docker-credential-NAME", _helper)
KEYS = tuple(Key('registry."HOST"', name, name, kind, text, example, unset) for name, kind, text, example, unset in (
    ("url", _ADDRESS, "where it listens, if not where its name says", '"https://10.0.0.5:5000"',
     "https://HOST; http:// for localhost and 127.…"),
    ("mirrors", _ADDRESSES, "asked first, in this order; what is said of a mirror's own HOST holds for it",
     '["https://mirror.lan"]', "none"),
    ("ca_file", PATH, "authorities (PEM) that are trusted beside the system's",
     '"/etc/composeapps/ca.pem"', "*.crt of certs.d/HOST/ in /etc/docker and /etc/containers"),
    ("cert_file", PATH, "the client's certificate (PEM); goes with key_file", '"/etc/composeapps/client.pem"',
     "*.cert there"),
    ("key_file", PATH, "the key of cert_file (PEM)", '"/etc/composeapps/client.key"', "*.key there"),
    ("proxy", _PROXY, 'the proxy to it, "" for none, whatever the environment says', '"http://proxy.lan:3128"',
     "what https_proxy, http_proxy, all_proxy and no_proxy of the environment say"),
    ("credential_helper", _HELPER, "the program docker-credential-NAME knows the login", '"secretservice"', "none"),
    ("auth_file", PATH, "the only file that its login is looked up in", '"/etc/composeapps/auth.json"',
     "the files of Podman and Docker"),
))
_BY_NAME = {key.name: key for key in KEYS}


def parse_section(hosts, where):
    """Check the content of the sections ``[registry."HOST"]``.

    Arguments:
        hosts: {HOST: {key: value}} as read from the file.
        where: how errors name the file.

    Returns {HOST: RegistrySettings}. Raises UsageError naming the key at fault.
    """
    settings = {}
    for host, entries in hosts.items():
        section = f'{where}: [registry."{host}"]'
        if not isinstance(entries, dict):
            raise UsageError(f"{where}: '{host}' belongs into a section of its own, [registry.\"HOST\"]")
        values = {}
        for name, value in entries.items():
            if name not in _BY_NAME:
                raise UsageError(f"{section}: unknown key '{name}'; known: {', '.join(_BY_NAME)}")
            values[name] = checked(section, _BY_NAME[name], value)
        if bool(values.get("cert_file")) != bool(values.get("key_file")):
            raise UsageError(f"{section}: 'cert_file' and 'key_file' go together")
        settings[host] = RegistrySettings(**values)
    return settings


class Registries:
    """Answers where and how a registry is spoken to; may be used by several threads.

    Arguments:
        settings: {HOST: RegistrySettings}.
        endpoints: {HOST: base URL}, which win over the settings' ``url``.
        context: an ssl.SSLContext for all registries; made for each from its settings by default.
        certificates: directories with a directory of certificates for each HOST.
        place: where blobs come from whatever registry they are named by, or None. Its ``url(host)`` returns an address,
            perhaps with a query, which stays behind the path of each request, or "" for the registry itself; its
            ``context()`` the ssl.SSLContext; its ``refused(url)`` is told that the address is not taken any more, and
            returns whether another one may be.
    """

    def __init__(self, settings=None, endpoints=None, context=None, certificates=CERTIFICATES, place=None):
        self._settings = dict(settings or {})
        for host, url in (endpoints or {}).items():
            self._settings[host] = self._settings.get(host, RegistrySettings())._replace(url=url)
        self._context, self._certificates, self.place = context, certificates, place
        self._contexts, self._plain = {}, None
        self._lock = threading.Lock()

    def settings(self, host):
        """Return the RegistrySettings of ``host``."""
        return self._settings.get(host) or RegistrySettings()

    def base_url(self, host):
        """Return the URL under which ``host``'s API lives: loopback names speak plain http."""
        if url := self.settings(host).url:
            return url
        if host == "docker.io":
            return "https://registry-1.docker.io"
        name = urlsplit(f"//{host}").hostname or ""
        plain = name in ("localhost", "::1") or name.startswith("127.")
        return f"{'http' if plain else 'https'}://{host}"

    def mirrors(self, host):
        """Return [(name, base URL)] of the mirrors of ``host``; the name is what their settings go by."""
        return [(urlsplit(url).netloc, url) for url in self.settings(host).mirrors]

    def context(self, host):
        """Return the ssl.SSLContext for ``host``; raises UsageError when a certificate cannot be read."""
        if self._context is not None:
            return self._context
        with self._lock:
            if host not in self._contexts:
                self._contexts[host] = self._make_context(host)
            return self._contexts[host]

    def has(self, host):
        """Tell whether something is said of ``host`` in particular."""
        return host in self._settings

    def _make_context(self, host):
        settings = self.settings(host)
        authorities = [settings.ca_file] if settings.ca_file else []
        pair = (settings.cert_file, settings.key_file) if settings.cert_file else None
        for directory in self._certificates:
            place = Path(directory, host)
            authorities += [] if settings.ca_file else sorted(place.glob("*.crt"))
            for certificate in [] if pair else sorted(place.glob("*.cert")):
                pair = (certificate, certificate.with_suffix(".key"))
        if not authorities and not pair:
            # Of all the hosts that a registry may lead to nothing is known.
            if self._plain is None:
                self._plain = _new_context()
            return self._plain
        context = _new_context()
        for file in authorities:
            _load(host, file, lambda file=file: context.load_verify_locations(cafile=file))
        if pair:
            # Without a function that says no, OpenSSL asks for the key's pass phrase on the terminal.
            _load(host, pair[0], lambda: context.load_cert_chain(*pair, password=lambda: ""))
        return context


def _new_context():
    import ssl

    return ssl.create_default_context()


def _load(host, file, action):
    try:
        action()
    except (OSError, ValueError) as err:
        # An ssl.SSLError has a reason of its own; the number in it is none of the system's.
        reason = getattr(err, "reason", None) or getattr(err, "strerror", None)
        raise UsageError(f"the certificate {file} for registry {host} cannot be used: "
                         f"{reason or 'it or its key is not PEM, or they do not belong together'}") from None
