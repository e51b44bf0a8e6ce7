# SPDX-License-Identifier: MIT
"""What metadata has to keep to before it is believed: one list of rules, for both dialects, without any I/O.

The rules are those of TUF's client workflow (the specification, section 5), with what real servers made necessary:
a timestamp that was renewed under its old version is taken when it says the same and lives longer, and a version that
comes back with other content is not. Each is a function of a Case and returns what is wrong, "" for nothing.
"""

import datetime
from typing import NamedTuple

from tuf.api.exceptions import LengthOrHashMismatchError

from composeapps.delivery.dialects import ATS, Document, fits
from composeapps.delivery.trust import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Seen, TrustError


class Case(NamedTuple):
    """A document that is to be believed, and what it is held against.

    ``role`` is its role's name, ``kind`` what its ``_type`` has to be; ``delegator`` the Document that names the role's
    keys (of a root the one before it); ``entry`` the MetaFile by which its parent vouches for it, None without one;
    ``seen`` the Seen of the role, None for none; ``now`` the time, UTC.
    """

    document: Document
    role: str
    kind: str
    delegator: Document
    now: datetime.datetime
    entry: object = None
    seen: Seen | None = None


class Rule(NamedTuple):
    """``kinds`` are the kinds of documents that it is for; ``broken`` returns what is wrong with a Case, or ""."""

    name: str
    kinds: tuple
    broken: object


def believe(case, rules=None):
    """Hold a document against all rules. Returns its Seen. Raises TrustError, of the first one that it breaks."""
    for rule in RULES if rules is None else rules:
        if case.kind in rule.kinds and (problem := rule.broken(case)):
            raise TrustError(rule.name, f"the factory's {case.role} metadata is not believed: {problem}")
    return Seen(case.document.signed.version, case.document.digest, case.document.signed.expires,
                _vouched(case.document.signed), tuple(sorted(signers(case.document, case.delegator, case.role))))


def still_signed(seen, delegator, role):
    """Tell whether what was believed of a role would be by the keys that it has now.

    When they were exchanged, versions begin anew: that is the way back after an attacker has used up the numbers.
    """
    known = delegator.signed.get_delegated_role(role)
    return len(set(seen.signers) & set(known.keyids)) >= known.threshold


def signers(document, delegator, role):
    """Return {key id: key} of those of a role's keys that signed a document; each key counts once, whatever its ids."""
    result = delegator.signed.get_verification_result(role, document.payload, document.signatures)
    found, materials = {}, set()
    for key_id, key in result.signed.items():
        material = key.keytype, key.keyval["public"]
        if fits(document, key_id, key) and material not in materials:
            materials.add(material)
            found[key_id] = key
    return found


def expired(document, now):
    """Tell whether a document's time is over."""
    return document.signed.is_expired(now)


def _vouched(signed):
    meta = getattr(signed, "meta", None)
    if signed.type == TIMESTAMP:
        meta = {"snapshot.json": signed.snapshot_meta}
    # Some list the root as well, which has its own chain.
    return {name: (entry.version, (entry.hashes or {}).get("sha256")) for name, entry in (meta or {}).items()
            if name != "root.json"}


def _kind(case):
    if case.document.signed.type != case.kind:
        return f"it is of the type {case.document.signed.type}"
    return ""


def _dialect(case):
    if case.document.dialect != case.delegator.dialect:
        return "it is in another dialect of TUF than the root that is trusted"
    return ""


def _signed_by(document, delegator, role, whose):
    wanted, found = delegator.signed.get_delegated_role(role).threshold, len(signers(document, delegator, role))
    return "" if found >= wanted else f"{found} of {wanted} signatures that {whose} asks for are good"


def _signed(case):
    whose = f"the root {case.delegator.signed.version}" if case.delegator.signed.type == ROOT else "who delegates"
    return _signed_by(case.document, case.delegator, case.role, whose)


def _signed_by_itself(case):
    return _signed_by(case.document, case.document, ROOT, "the new root")


def _next_root(case):
    expected = case.delegator.signed.version + 1
    # The root that comes with the image is held against itself.
    if case.delegator is case.document or case.document.signed.version == expected:
        return ""
    return f"it has the version {case.document.signed.version}, where {expected} comes next"


def _promised_content(case):
    try:
        if case.entry is not None:
            case.entry.verify_length_and_hashes(case.document.data)
    except LengthOrHashMismatchError:
        return "its length or its hash is not what its parent vouches for"
    return ""


def _promised_version(case):
    version = case.document.signed.version
    if case.entry is not None and version != case.entry.version:
        return f"it has the version {version}, and its parent vouches for {case.entry.version}"
    return ""


def _no_older(case):
    if case.seen and case.document.signed.version < case.seen.version:
        return f"its version goes back from {case.seen.version} to {case.document.signed.version}"
    return ""


def _says_the_same(case):
    """One version says one thing; a server that renews a timestamp changes its expiry only."""
    if case.seen and case.document.signed.version == case.seen.version \
            and _vouched(case.document.signed) != case.seen.meta:
        return f"version {case.seen.version} says something else than it did before"
    return ""


def _lives_on(case):
    if case.seen and case.document.signed.version == case.seen.version \
            and case.document.signed.expires < case.seen.expires:
        return f"version {case.seen.version} ends earlier than it did before"
    return ""


def _vouches_for_no_older(case):
    vouched = _vouched(case.document.signed)
    for name, (version, _digest) in (case.seen.meta if case.seen else {}).items():
        if name in vouched and vouched[name][0] < version:
            return f"the version of {name} goes back from {version} to {vouched[name][0]}"
    return ""


def _loses_nothing(case):
    missing = sorted((case.seen.meta if case.seen else {}).keys() - _vouched(case.document.signed).keys())
    return f"it does not list {missing[0]} any more" if missing else ""


def _no_version_twice(case):
    vouched = _vouched(case.document.signed)
    for name, (version, digest) in (case.seen.meta if case.seen else {}).items():
        if name in vouched and vouched[name][0] == version and digest and vouched[name][1] not in (None, digest):
            return f"version {version} of {name} comes back with other content"
    return ""


def _alive(case):
    if expired(case.document, case.now):
        return (f"it ended at {case.document.signed.expires:%Y-%m-%dT%H:%M:%SZ}, and now is "
                f"{case.now:%Y-%m-%dT%H:%M:%SZ}: the factory has to renew it")
    return ""


_ALL, _LOWER = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS), (SNAPSHOT, TARGETS)
RULES = (
    Rule("type", _ALL, _kind),
    Rule("dialect", _ALL, _dialect),
    Rule("next-root", (ROOT,), _next_root),
    Rule("promised-content", _LOWER, _promised_content),
    Rule("signed", _ALL, _signed),
    Rule("signed-by-itself", (ROOT,), _signed_by_itself),
    Rule("no-older", (TIMESTAMP, SNAPSHOT), _no_older),
    Rule("says-the-same", (TIMESTAMP,), _says_the_same),
    Rule("lives-on", (TIMESTAMP,), _lives_on),
    Rule("vouches-for-no-older", (TIMESTAMP, SNAPSHOT), _vouches_for_no_older),
    Rule("no-version-twice", (TIMESTAMP, SNAPSHOT), _no_version_twice),
    Rule("promised-version", _LOWER, _promised_version),
    Rule("loses-nothing", (SNAPSHOT,), _loses_nothing),
    # An old root is only the way to the next one, so composeapps.delivery.refresh asks this of the last.
    Rule("alive", (TIMESTAMP, SNAPSHOT, TARGETS), _alive),
)
# In the standard's workflow (5.4.3) a timestamp of the version that is known is no news, whatever it says.
NO_NEWS = {"says-the-same", "lives-on"}


def is_no_news(err, document):
    """Tell whether a timestamp that broke a rule is to be passed over, and what is known goes on to count."""
    return document.dialect != ATS and err.rule in NO_NEWS
