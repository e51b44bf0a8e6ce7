# SPDX-License-Identifier: MIT
"""What is remembered of believed metadata, and the error that ends belief."""

import datetime
from typing import NamedTuple

from composeapps.errors import ComposeAppsError, NotFoundError

ROOT, TIMESTAMP, SNAPSHOT, TARGETS = "root", "timestamp", "snapshot", "targets"
# Bytes that a document of a role, or of one that targets delegate to, may have.
LIMITS = {ROOT: 512_000, TIMESTAMP: 64_000, SNAPSHOT: 2_000_000, TARGETS: 4_000_000}
# Of a delegation, beside TUF's own fields: the only tags that its Targets may have.
TAGS = "x-composeapps-tags"


class TrustError(ComposeAppsError):
    """Metadata broke a rule: it is not believed, and what was believed before stays. ``rule`` is the rule's name."""

    exit_code = 17

    def __init__(self, rule, text):
        super().__init__(text)
        self.rule = rule


class NothingHereError(NotFoundError):
    """The server has no metadata for this device, which says nothing about what was believed before."""


class Seen(NamedTuple):
    """What was believed last of a role: a later document may not say less.

    ``version``, ``digest`` (of its bytes) and ``expires`` (UTC) are the document's; ``meta`` is {file: (version,
    SHA-256 or None)} of what it vouches for; ``signers`` are the ids of the keys that it was believed by.
    """

    version: int
    digest: str
    expires: datetime.datetime
    meta: dict
    signers: tuple


def to_text(moment):
    """Return a time (UTC) in the form that TUF has for times."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def from_text(text):
    """Return the time (UTC) of a text in that form; raises ValueError."""
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
