# SPDX-License-Identifier: MIT
"""Metadata in the format of TUF 1.0, by python-tuf: what is read of a repository is checked, what is written is new.

Beside TUF's own fields there are three of this program's, which other clients pass over: in root ``DAYS``, for how many
days each role's metadata is signed; in targets ``REVOKED``, names of Targets that were taken back and when, so that
none of them is used again; in a delegation ``TAGS``, the only tags that its Targets may have.
"""

import datetime
from typing import NamedTuple

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError, SerializationError

from composeapps.errors import CorruptError, UsageError

DAYS, REVOKED = "x-composeapps-days", "x-composeapps-revoked"
ONLINE = ("snapshot", "timestamp")
TOP = ("root", "targets", *ONLINE)
# How long what is signed is good for, unless the root says otherwise.
DEFAULT_DAYS = {"root": 730, "targets": 365, "snapshot": 30, "timestamp": 7}
MOST_DAYS = 7300
# Bytes of a file, which devices take no more of.
LIMITS = {"root": 512_000, "timestamp": 16_000}
LIMIT = 1_000_000
# No clock of a factory is behind this program.
_YOUNGEST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class State(NamedTuple):
    """What is published: ``roots``, all from 1 on; ``waves`` is {name: Metadata}. All None or empty before init."""

    roots: tuple = ()
    timestamp: Metadata = None
    snapshot: Metadata = None
    targets: Metadata = None
    waves: dict = {}

    @property
    def root(self):
        """The Root that is in force."""
        return self.roots[-1].signed

    def document(self, role):
        """Return the Metadata of a role, None when there is none."""
        if role == "root":
            return self.roots[-1] if self.roots else None
        return getattr(self, role) if role in TOP else self.waves.get(role)

    def version(self, role):
        """Return the published version of a role, 0 for none."""
        found = self.document(role)
        return found.signed.version if found else 0


def parse(data, role, what):
    """Return the Metadata in bytes.

    Arguments:
        role: what it has to be, "root", "targets" (also for a wave), "snapshot" or "timestamp".
        what: how the error names it.

    Raises CorruptError.
    """
    try:
        found = Metadata.from_bytes(data)
    except (DeserializationError, ValueError, RecursionError, RepositoryError) as err:
        cause = err.__cause__ or err
        raise CorruptError(f"{what} cannot be read: {str(cause) or type(cause).__name__}") from None
    if found.signed.type != role:
        raise CorruptError(f"{what} is of the kind {found.signed.type}, not {role}")
    return found


def dump(document, role):
    """Return Metadata as bytes. Raises UsageError when devices would not take so many."""
    try:
        data = document.to_bytes()
    except SerializationError as err:
        raise UsageError(f"{role} cannot be written: {err.__cause__ or err}") from None
    limit = LIMITS.get(role, LIMIT)
    if len(data) > limit:
        raise UsageError(f"{role} would have {len(data)} bytes, more than the {limit} that devices take: revoke old "
                         "Targets")
    return data


def next_of(document, days, now):
    """Return the next version of Metadata, unsigned, good for so many days."""
    copied = Metadata.from_bytes(document.to_bytes())
    copied.signatures.clear()
    copied.signed.version += 1
    copied.signed.expires = now + datetime.timedelta(days=days)
    return copied


def days_of(root, role):
    """Return for how many days a role's metadata is signed; a wave's as those of targets."""
    role = role if role in TOP else "targets"
    days = root.unrecognized_fields.get(DAYS)
    found = days.get(role) if isinstance(days, dict) else None
    return found if isinstance(found, int) and 0 < found <= MOST_DAYS else DEFAULT_DAYS[role]


def clock(state, now=None, trusted=False):
    """Return the time, to the second.

    Arguments:
        state: the State that it must not lie before.
        now: the machine's; None to look.
        trusted: it is right, and the one that the State was signed by was not.

    Raises UsageError when the machine's clock cannot be right.
    """
    now = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0)
    least = _YOUNGEST
    if state.timestamp and not trusted:
        signed = state.timestamp.signed.expires - datetime.timedelta(days=days_of(state.root, "timestamp"))
        least = max(least, signed - datetime.timedelta(days=1))
    if now < least:
        raise UsageError(f"this machine's clock says {text_of(now)}, which is before {text_of(least)}, when this "
                         "repository was last signed: set the clock, or devices would take what is new for expired; "
                         "if it is that signing which was wrong, 'composeapps target renew --trust-clock' mends it")
    return now


def text_of(moment):
    """Return a time as TUF writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def authority(state, documents, role):
    """Return (who says which keys sign a role, whether it is new): of the new documents where they have it.

    Arguments:
        documents: {role: Metadata} that are to be published.

    Raises UsageError for a wave that there is not.
    """
    delegator = "root" if role in TOP else "targets"
    found = documents.get(delegator) or state.document(delegator)
    if delegator == "targets" and (found is None or role not in waves_of(found.signed)):
        raise UsageError(f"there is no wave '{role}': 'composeapps target wave' makes one")
    return found.signed, delegator in documents


def authorities(state, documents, role):
    """Return all that say which keys sign a role, each of which has to be content: for root the one before, too."""
    found = [authority(state, documents, role)[0]]
    return [*found, state.root] if role == "root" and "root" in documents and state.roots else found


def waves_of(targets):
    """Return {name: DelegatedRole} of a Targets."""
    return dict((targets.delegations.roles or {}) if targets.delegations else {})


def is_signed(document, role, by):
    """Tell whether Metadata has the signatures that a Root or Targets asks for."""
    try:
        return bool(by.get_verification_result(role, document.signed_bytes, document.signatures))
    except ValueError:
        return False


def missing(state, documents):
    """Return {role: (how many more signatures, the key ids that may make them)} of documents."""
    found = {}
    for role, document in documents.items():
        for by in authorities(state, documents, role):
            result = by.get_verification_result(role, document.signed_bytes, document.signatures)
            if not result.verified:
                lacking, keys = found.get(role, (0, set()))
                found[role] = max(lacking, result.threshold - len(result.signed)), keys | set(result.unsigned)
    return found


def sign(state, documents, keys):
    """Sign documents with whichever of the Keys may; return the sorted (role, key id) of new signatures.

    A role's old keys sign as well where a new root names other ones: devices see one before the other.
    Raises ComposeAppsError.
    """
    done = []
    for role, document in documents.items():
        bys = authorities(state, documents, role)
        if role in TOP and state.roots:
            bys.append(state.root)
        wanted = {keyid for by in bys for keyid in by.get_delegated_role(role).keyids}
        for key in keys:
            if key.id in wanted and key.can_sign and not _has_signed(document, key):
                _sign(document, role, key)
                done.append((role, key.id))
    return sorted(done)


def _sign(document, role, key):
    signer = key.signer()
    try:
        document.sign(signer, append=True)
    except UnsignedMetadataError as err:
        # Where the key is elsewhere it is only asked for now; its library says why in words of its own.
        cause = err.__cause__ or err
        raise UsageError(f"key {key.path} does not sign {role}: {str(cause) or type(cause).__name__}: nothing was "
                         "published") from None


def _has_signed(document, key):
    from securesystemslib.exceptions import UnverifiedSignatureError

    signature = document.signatures.get(key.id)
    try:
        return signature is not None and key.public.verify_signature(signature, document.signed_bytes) is None
    except UnverifiedSignatureError:
        return False
