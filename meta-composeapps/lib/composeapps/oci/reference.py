# SPDX-License-Identifier: MIT
"""References to repositories, images and apps: ``host[:port]/path[:tag][@sha256:hex]``.

The grammar is that of the OCI distribution specification (repository and tag
names) with Docker's shorthand: a reference without a host means Docker Hub.
"""

import functools
import re
from typing import NamedTuple

from composeapps.errors import UsageError
from composeapps.oci.digests import is_digest
from composeapps.oci.names import COMPONENT, AppName
from composeapps.oci.parsing import shown
from composeapps.patterns import Pattern

DEFAULT_HOST = "docker.io"
# What else Docker Hub is called.
_OTHER_NAMES = ("index.docker.io",)

_TAG = Pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PATH = Pattern(f"{COMPONENT}(?:/{COMPONENT})*")
# What stands before an "@" that a path follows: the login of an address, whatever characters it has.
_LOGIN = Pattern(r".*@(?=[^@]*/)", re.DOTALL)
_LONGEST, _LONGEST_NAME = 1000, 255
_HOST = Pattern(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")


class Reference(NamedTuple):
    """A parsed reference.

    ``host`` is the registry's name, with the port when there is one; ``path`` the repository;
    ``tag`` and ``digest`` are empty strings when absent.
    """

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self):
        """The repository with its host, as the tools of the field print it."""
        return f"{self.host}/{self.path}"

    @property
    def hex(self):
        """The digest without its algorithm."""
        return self.digest.partition(":")[2]

    @property
    def app_name(self):
        """The AppName under which an app is stored: the path after its first component, if it has two.

        Raises UsageError for a path that gives none, one that is too long for example.
        """
        return _app_name(self.host, self.path)

    def pinned(self, digest):
        """Return this reference by ``digest`` alone, without the tag."""
        return self._replace(tag="", digest=digest)

    def __str__(self):
        text = self.repository
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text


@functools.lru_cache(maxsize=512)
def _app_name(host, path):
    factory, slash, name = path.partition("/")
    return AppName(name if slash else factory, what=f"app of {host}/{path}:")


def parse(text, *, what="reference"):
    """Parse a reference to an image or an app.

    Arguments:
        text: the reference as a user or a compose file gives it.
        what: how the error names it, "service image" for example.

    Raises UsageError when it is malformed, or longer than registries and file systems take.
    """
    return _parsed(text, what)


# A command asks for the few that a device has again and again.
@functools.lru_cache(maxsize=512)
def _parsed(text, what):
    if len(text) > _LONGEST:
        raise UsageError(f"{what} {shown(text)} has {len(text)} characters, more than the {_LONGEST} allowed")
    if "/" in text.partition("@")[2] and (login := _LOGIN.match(text)):
        # What is refused is shown, and logged: not with a password.
        raise UsageError(f"{what} '{text[login.end():]}' was given with a login before it: leave that out; "
                         "'docker login' writes down a registry's login")
    remote, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise UsageError(f"{what} '{text}': '{digest}' is not a digest of the form sha256:<64 hex digits>")
    head, slash, rest = remote.partition("/")
    if slash and (head == "localhost" or any(c in head for c in ".:[")):
        host, path = DEFAULT_HOST if head in _OTHER_NAMES else head, rest
    else:
        host, path = DEFAULT_HOST, remote
    path, colon, tag = path.partition(":")
    if host == DEFAULT_HOST and path and "/" not in path:
        path = f"library/{path}"
    if colon and not _TAG.fullmatch(tag):
        raise UsageError(f"{what} '{text}': '{tag}' is not a tag")
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(path):
        raise UsageError(f"{what} '{text}' is not of the form HOST[:PORT]/PATH[:TAG][@sha256:HEX], in lower case")
    if not _has_a_port(host):
        raise UsageError(f"{what} '{text}': the port of {host} is not a number from 1 to 65535")
    if max(len(host), len(path)) > _LONGEST_NAME:
        raise UsageError(f"{what} '{text}' has a name of more than the {_LONGEST_NAME} characters that registries take")
    return Reference(host, path, tag, digest)


def _has_a_port(host):
    """Tell whether the port of a registry's name is one that there can be, or it has none."""
    port = host.rpartition("]")[2].rpartition(":")[2] if ":" in host.rpartition("]")[2] else "443"
    return 0 < int(port) < 65536


def parse_pinned(text, *, what="reference", version=True):
    """Parse a reference that must carry a digest; raises UsageError when it does not.

    Arguments:
        text, what: as for ``parse``.
        version: an app's version is meant, which lies nowhere but in its own registry; else an image, for which
            no host means Docker Hub.
    """
    ref = parse(text, what=what)
    if not ref.digest:
        named = f"{ref.repository}@sha256:…" if not version or text.startswith(f"{ref.host}/") else \
            "HOST/PATH@sha256:…, as 'composeapps publish' printed it"
        raise UsageError(f"{what} '{text}' has no digest: name it as {named}")
    return ref
