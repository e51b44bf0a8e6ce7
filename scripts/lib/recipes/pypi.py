# SPDX-License-Identifier: MIT
"""Find and fetch source archives on PyPI or another index of Python packages.

The index is read as the simple repository API gives it in HTML (PyPA specification "Simple
repository API", PEP 503 and PEP 592), which PyPI and all its mirrors speak.
"""

import base64
import hashlib
import re
import time
from dataclasses import dataclass
from html.parser import HTMLParser
from http import HTTPStatus
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, canonicalize_name, parse_sdist_filename
from packaging.utils import parse_wheel_filename as parse_wheel
from packaging.version import Version

from composeapps import __version__
from composeapps.errors import CorruptError, NotFoundError, RegistryError, UsageError
from composeapps.registry.failures import PERMANENT, TRANSIENT, EndedError, reason
from composeapps.registry.transport import Transport

DEFAULT_INDEX = "https://pypi.org/simple"
SUFFIX = ".tar.gz"

_ATTEMPTS = 3
_MAX_PAGE = 64 << 20
_MAX_SDIST = 256 << 20
_REDIRECTS = {301, 302, 303, 307, 308}
_RETRY_STATUS = {429, 500, 502, 503, 504}
_SHA256 = re.compile(r"(?:^|&)sha256=([0-9a-f]{64})(?:&|$)")


@dataclass(frozen=True)
class Link:
    """A source archive as the index offers it; ``yanked`` is why it was withdrawn, or None."""

    filename: str
    url: str
    sha256: str
    yanked: str | None


class PackageIndex:
    """Reads one index.

    :param url: its address, https://pypi.org/simple for example; a login in it is used and never shown
    :param environ: the environment to read proxies from
    :param timeout: seconds of silence on a connection before it counts as dead
    :raises UsageError: the address is none
    """

    def __init__(self, url=DEFAULT_INDEX, environ=None, timeout=60):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("the package index is not an http or https address: give one like " + DEFAULT_INDEX)
        self._origin = (parts.scheme, parts.netloc.rpartition("@")[2])
        self._login = None
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._login = "Basic " + base64.b64encode(login.encode()).decode()
        self.url = urlunsplit((*self._origin, parts.path.rstrip("/"), "", ""))
        self._transport = Transport(timeout, environ=environ)

    def close(self):
        """Close all connections."""
        self._transport.close()

    def find(self, name, version):
        """Return the Link of a package's source archive.

        :raises NotFoundError: the index has no such package, version or source archive
        :raises RegistryError: the index cannot be reached or fails
        :raises CorruptError: what the index says is no page of links, or lacks the sha256
        """
        name = canonicalize_name(name)
        page = f"{self.url}/{name}/"
        content = self._get(page, _MAX_PAGE, f"package {name}", "text/html, application/vnd.pypi.simple.v1+html;q=0.9")
        parser = _Links()
        try:
            parser.feed(content.decode("utf-8"))
        except UnicodeDecodeError:
            raise CorruptError(f"{page} is not UTF-8 text: is {self.url} a package index?") from None
        wanted, other, versions = Version(version), None, set()
        for href, yanked in parser.links:
            target, fragment = urldefrag(urljoin(page, href))
            filename = unquote(urlsplit(target).path.rpartition("/")[2])
            found = _version(filename, name)
            if found is None:
                continue
            versions.add(found)
            if found != wanted:
                continue
            if not filename.endswith(SUFFIX):
                other = filename
                continue
            match = _SHA256.search(fragment)
            if not match:
                raise CorruptError(f"{self.url} gives no sha256 of {filename}: use an index that does")
            return Link(filename, target, match[1], yanked)
        if other:
            raise NotFoundError(
                f"package {name} {version} is published without a {SUFFIX} source archive (but {other}): "
                "write its recipe by hand")
        if versions:
            stable = {found for found in versions if not found.is_prerelease} or versions
            raise NotFoundError(f"package {name} has no version {version} on {self.url}: its newest is {max(stable)}")
        raise NotFoundError(f"package {name} has no files on {self.url}")

    def download(self, link):
        """Return the bytes of an archive, which match its sha256.

        :raises CorruptError: they do not
        :raises RegistryError: the host cannot be reached or fails
        :raises NotFoundError: the archive is gone
        """
        data = self._get(link.url, _MAX_SDIST, f"archive {link.filename}", "*/*")
        digest = hashlib.sha256(data).hexdigest()
        if digest != link.sha256:
            raise CorruptError(
                f"archive {link.filename} arrived with the wrong content: its sha256 is {digest}, not {link.sha256}")
        return data

    def _get(self, url, limit, what, accept):
        host = urlsplit(url).hostname
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = self._follow(url, accept)
                data = response.read(limit + 1)
            except EndedError:
                problem = f"broke off in the middle of {what}"
            except (OSError, *TRANSIENT) as err:
                problem = f"cannot be reached: {reason(err)}"
                if isinstance(err, PERMANENT):
                    break
            else:
                if response.status == HTTPStatus.OK:
                    if len(data) > limit:
                        raise CorruptError(f"{what} is longer than the {limit >> 20} MiB allowed")
                    return data
                elif response.status == HTTPStatus.NOT_FOUND:
                    raise NotFoundError(f"{what} is not on {host}: check its name and version")
                else:
                    problem = f"failed on {what}: {response.status} {response.reason}"
                    if response.status not in _RETRY_STATUS:
                        break
            if attempt < _ATTEMPTS:
                time.sleep(0.3 * 2**attempt)
        raise RegistryError(f"package index {host} {problem}")

    def _follow(self, url, accept):
        """Send one request and follow its redirects; the login goes to the index's own origin alone."""
        for _hop in range(6):
            parts = urlsplit(url)
            headers = {"User-Agent": f"composeapps/{__version__}", "Accept": accept}
            if self._login and (parts.scheme, parts.netloc) == self._origin:
                headers["Authorization"] = self._login
            response = self._transport.send("GET", url, headers)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.drain()
            target = urljoin(url, location)
            if parts.scheme == "https" and urlsplit(target).scheme != "https":
                raise RegistryError(f"package index {parts.hostname} redirects from https to http: refused")
            url = target
        raise RegistryError(f"package index {urlsplit(url).hostname} redirects in circles")


def _version(filename, name):
    """Return the Version of a package's file, or None for a file of another kind or package."""
    try:
        if filename.endswith(".whl"):
            found, version = parse_wheel(filename)[:2]
        else:
            found, version = parse_sdist_filename(filename)
    except (InvalidSdistFilename, InvalidWheelFilename):
        return None
    return version if found == name else None


class _Links(HTMLParser):
    """Collects (href, why it was yanked or None) of a page's links."""

    def __init__(self):
        super().__init__()
        self.links = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "a" and given.get("href"):
            yanked = (given["data-yanked"] or "no reason given") if "data-yanked" in given else None
            self.links.append((given["href"], yanked))
