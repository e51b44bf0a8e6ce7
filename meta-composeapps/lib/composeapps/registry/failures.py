# SPDX-License-Identifier: MIT
"""What went wrong with a registry, in words that may be shown."""

import socket
import ssl
import time

from composeapps.errors import CorruptError, RegistryError
from composeapps.oci.documents import parse_json
from composeapps.registry.texts import clean, scrub

# Another try seldom changes anything: nobody listens, the name does not resolve.
PERMANENT = (ConnectionRefusedError, socket.gaierror)
# What a broken or slow network looks like from here: worth another try on a new connection.
TRANSIENT = (ConnectionError, TimeoutError, ssl.SSLError)
# Of a failure's body that much is read, and for so many seconds.
_WORDS, _WORDS_SECONDS = 16 * 1024, 5
# openssl/x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10


class Unavailable(RegistryError):
    """A try failed for a reason that may pass.

    ``after`` is for how many seconds the registry asked to be left alone, or None; ``permanent`` tells
    that another try seldom helps, ``hopeless`` that none will; ``reached`` that the registry has answered before.
    """

    def __init__(self, text, problem, after=None, permanent=False, hopeless=False, reached=False):
        super().__init__(text)
        self.problem, self.after = problem, after
        self.permanent, self.hopeless, self.reached = permanent, hopeless, reached


class TrickleError(TimeoutError):
    """Something came, but so little that it counts as nothing."""


class EndedError(ConnectionError):
    """The connection ended before the answer did."""


def reason(err):
    """Say in a few words why the network failed."""
    if isinstance(err, ssl.SSLCertVerificationError):
        clock = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        remedies = {
            _NOT_YET_VALID: f"; the clock here says {clock} UTC: set it if that is wrong",
            _EXPIRED: f"; the clock here says {clock} UTC",
        }
        return f"certificate verify failed: {clean(err.verify_message)}{remedies.get(err.verify_code, '')}"
    if isinstance(err, ssl.SSLError):
        if err.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
            return "what answers does not speak TLS: a registry without it has an address with http://"
        return clean(str(err).partition(" (_ssl.c")[0])
    if isinstance(err, TimeoutError) and not isinstance(err, TrickleError):
        return "no answer in time"
    return clean(getattr(err, "strerror", None) or str(err) or type(err).__name__)


def is_hopeless(err):
    """Tell whether no other try can help. A clock that is behind is set as soon as there is a network."""
    return isinstance(err, ssl.SSLCertVerificationError) and err.verify_code != _NOT_YET_VALID


def is_page(response):
    """Tell whether an answer is a web page, which no registry sends for what it has."""
    kind = (response.headers.get("Content-Type") or "").partition(";")[0]
    return kind.strip().lower() in ("text/html", "application/xhtml+xml")


def message(response, secrets=()):
    """Return a registry's own words for a failure, else the HTTP status; the rest of the answer is left unread.

    Arguments:
        secrets: what a registry may know of us and nobody else should read, as texts.
    """
    status = clean(scrub(f"HTTP {response.status} {response.reason}", secrets), 80)
    try:
        data = response.read(_WORDS, time.monotonic() + _WORDS_SECONDS)
        if (response.headers.get("Content-Type") or "").startswith("text/plain"):
            text = data.decode(errors="replace").strip().partition("\n")[0]
        else:
            found = parse_json(data, "answer")
            # A registry says it in a list, other servers at the top.
            text = found.get("message")
            if errors := found.get("errors"):
                text = errors[0].get("message") or errors[0].get("code")
    except (CorruptError, AttributeError, IndexError, TypeError, KeyError, OSError):
        return status
    finally:
        response.close()
    return f"{status}: {clean(scrub(text, secrets))}" if isinstance(text, str) and clean(text) else status
