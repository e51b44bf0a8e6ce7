# SPDX-License-Identifier: MIT
"""Bringing what is believed of the factory's metadata up to date: TUF's client workflow (the specification, section 5).

Each document is durable as soon as it is believed, before the next is asked for, so a cut at any point leaves what was
believed before or more of it. A timestamp that is the last one byte for byte ends the work: no signature is looked at
then, and nothing is written.
"""

import hashlib
from typing import NamedTuple
from urllib.parse import quote

from composeapps.delivery import clock, selection
from composeapps.delivery.stored import version_of
from composeapps.delivery.trust import (
    LIMITS,
    ROOT,
    SNAPSHOT,
    TAGS,
    TARGETS,
    TIMESTAMP,
    NothingHereError,
    TrustError,
    from_text,
    to_text,
)
from composeapps.errors import ComposeAppsError, CorruptError, NotFoundError

# Roots that a device may be behind; roles that may be delegated to.
MOST_ROOTS, MOST_ROLES = 256, 32


class Refreshed(NamedTuple):
    """``targets`` is a tuple of selection.Target, all that are signed; ``changed`` whether anything was new."""

    targets: tuple
    changed: bool


def refresh(stored, fetch, notify=lambda text: None, at=None):
    """Bring what is believed up to date.

    Arguments:
        stored: the stored.Stored.
        fetch: called with a file's name and the bytes that it may have at most; returns its bytes, None for none.
        notify: called with a sentence about a delegated role that is passed over.
        at: the time (UTC), the clock's by default.

    Returns a Refreshed. Raises TrustError for what is not believed, CorruptError for what is no metadata,
    NothingHereError when there is none, NotFoundError when there is no root to trust, StorageError, and what ``fetch``
    raises.
    """
    now = at or clock.now(stored.signed())
    root, roots = stored.root(), Roots(stored, now)
    newer = roots.walk(root, fetch)
    data = fetch("timestamp.json", LIMITS[TIMESTAMP])
    if data is None:
        raise NothingHereError("the factory's server has no metadata for this device (no timestamp.json)")
    if not newer and (done := _still_complete(stored, root, data, now)):
        return Refreshed(_from_documents(stored, done), False)
    chain = Chain(stored, newer or root, fetch, now, notify)
    chain.timestamp(data)
    chain.snapshot()
    return Refreshed(chain.all_targets(), True)


def _still_complete(stored, root, timestamp, now):
    """Return the record of all that is in place when the timestamp is the one that was believed last, else None."""
    seen, done = stored.seen(TIMESTAMP), stored.complete()
    if done and seen and seen.digest == done["timestamp"] == _digest(timestamp) and done["root"] == _digest(root) \
            and now < from_text(done["until"]):
        return done
    return None


def known(stored):
    """Return the Targets that are believed already, without asking anybody; those that ended are among them.

    Raises NothingHereError when nothing was believed yet.
    """
    done = stored.complete()
    if not done:
        raise NothingHereError("nothing that the factory signed has been seen here yet")
    return _from_documents(stored, done)


def _from_documents(stored, done):
    """Return the Targets of documents that were believed before; they are those of the record, byte for byte."""
    import json

    found = []
    for role, names in done["roles"].items():
        # In one of the dialects it may be left out.
        entries = json.loads(stored.kept(role))["signed"].get("targets", {})
        found += selection.of(((name, entries[name].get("custom")) for name in
                               (entries if names is None else names)), role)
    return tuple(found)


def _digest(data):
    return hashlib.sha256(data).hexdigest()


def _verifier():
    """Return the modules that look at signatures: they load what a check-in without news does not need."""
    try:
        from composeapps.delivery import dialects, rules
    except ImportError as err:
        raise NotFoundError(f"signatures cannot be verified here ({err}): add the package composeapps-delivery to this "
                            "device's image, or install tuf and cryptography") from None
    return dialects, rules


class Roots:
    """The way from the root that is trusted to the newest one."""

    def __init__(self, stored, now):
        self._stored, self._now = stored, now

    def walk(self, data, fetch):
        """Follow the roots from the trusted one's ``data``; return the newest one's bytes, None for no newer one."""
        newer, document = None, None
        for version in range(version_of(data) + 1, version_of(data) + 1 + MOST_ROOTS):
            following = fetch(f"{version}.root.json", LIMITS[ROOT])
            if following is None:
                break
            dialects, rules = _verifier()
            document = document or trusted_root(data, self._now)
            candidate = dialects.read(following, ROOT)
            rules.believe(rules.Case(candidate, ROOT, ROOT, document, self._now))
            self._stored.put_root(following)
            newer, document = following, candidate
        return newer


def trusted_root(data, now):
    """Return the Document of a root that is trusted because of where it was; it has to be signed by itself."""
    dialects, rules = _verifier()
    document = dialects.read(data, ROOT)
    rules.believe(rules.Case(document, ROOT, ROOT, document, now))
    return document


class Chain:
    """From the last root to the targets; ``root`` are its bytes. The others are as for ``refresh``."""

    def __init__(self, stored, root, fetch, now, notify):
        self._dialects, self._rules = _verifier()
        self._stored, self._fetch, self._now, self._notify = stored, fetch, now, notify
        self._root = trusted_root(root, now)
        self._root_data = root
        if self._rules.expired(self._root, now):
            raise TrustError("root-alive", f"the factory's root {self._root.signed.version} ended at "
                             f"{to_text(self._root.signed.expires)}: the factory has to publish a newer one")
        self._timestamp, self._snapshot, self._believed = None, None, {}
        if stored.lost():
            self._remember()

    def _remember(self):
        """Make the record, which is lost, from the documents that are still there and that the root still vouches for.
        """
        stored, rules = self._stored, self._rules
        kept = {role: stored.kept(role) for role in (TIMESTAMP, SNAPSHOT)}
        stored.begin_anew()
        for role, data in kept.items():
            try:
                document = self._dialects.read(data, role) if data is not None else None
                if document is None:
                    continue
                seen = rules.believe(rules.Case(document, role, role, self._root, self._now), [
                    rule for rule in rules.RULES if rule.name != "alive"])
                stored.put(role, data, seen)
            except ComposeAppsError as err:
                self._notify(f"what was known of the factory's {role} metadata is lost, so an older one may be taken "
                             f"once: {err}")

    def _seen(self, role, delegator):
        seen = self._stored.seen(role)
        return seen if seen and self._rules.still_signed(seen, delegator, role) else None

    def _believe(self, data, role, kind, delegator, entry=None, seen=None):
        document = self._dialects.read(data, kind)
        case = self._rules.Case(document, role, kind, delegator, self._now, entry, seen)
        return document, self._rules.believe(case)

    def timestamp(self, data):
        """Believe a timestamp."""
        seen = self._seen(TIMESTAMP, self._root)
        document = self._dialects.read(data, TIMESTAMP)
        try:
            believed = self._rules.believe(
                self._rules.Case(document, TIMESTAMP, TIMESTAMP, self._root, self._now, None, seen))
        except TrustError as err:
            if not self._rules.is_no_news(err, document):
                raise
            data = self._stored.document(TIMESTAMP)
            if data is None:
                raise
            document, believed = self._believe(data, TIMESTAMP, TIMESTAMP, self._root, seen=seen)
        self._keep(TIMESTAMP, data, believed)
        self._timestamp = document

    def snapshot(self):
        """Get and believe the snapshot that the timestamp vouches for."""
        entry = self._timestamp.signed.snapshot_meta
        self._snapshot = self._get(SNAPSHOT, SNAPSHOT, self._root, entry, self._seen(SNAPSHOT, self._root))

    def top(self):
        """Get and believe the top-level targets; return the Document."""
        return self.role(TARGETS, self._root)

    def role(self, role, delegator):
        """Get and believe the targets of a role that a Document delegates to; return the Document."""
        if (role, id(delegator)) not in self._believed:
            entry = self._snapshot.signed.meta.get(f"{role}.json")
            if entry is None:
                raise TrustError("listed", f"the factory's snapshot does not list the role '{role}'")
            self._believed[role, id(delegator)] = self._get(role, TARGETS, delegator, entry)
        return self._believed[role, id(delegator)]

    def _get(self, role, kind, delegator, entry, seen=None):
        """Return the Document of a role: the stored one when it is the one that is vouched for, else the server's."""
        data = self._stored.document(role)
        if data is not None:
            try:
                return self._believe(data, role, kind, delegator, entry, seen)[0]
            except (TrustError, CorruptError):
                pass
        name = f"{quote(role, safe='')}.json"
        if self._root.signed.consistent_snapshot:
            name = f"{entry.version}.{name}"
        data = self._fetch(name, min(entry.length or LIMITS[kind], LIMITS[kind]))
        if data is None:
            raise TrustError("there", f"the factory's server lacks {name}, which its metadata promises")
        document, believed = self._believe(data, role, kind, delegator, entry, seen)
        self._keep(role, data, believed)
        return document

    def _keep(self, role, data, believed):
        before = self._stored.seen(role)
        if before != believed or self._stored.document(role) is None:
            self._stored.put(role, data, believed)

    def all_targets(self):
        """Return all Targets that are signed, and write down that they are in place.

        A delegated role that is not believed is told of and passed over: one wave does not stop the others.
        """
        top, found, roles, digests = self.top(), [], {}, {}
        documents = [self._root, self._timestamp, self._snapshot]
        for role, document, names in self._walk(top):
            entries = document.signed.targets
            chosen = selection.of(((name, entries[name].custom) for name in names), role)
            found += chosen
            roles[role], digests[role] = None if len(names) == len(entries) else names, document.digest
            documents.append(document)
        until = to_text(min(document.signed.expires for document in documents))
        # A builder whose clock is ahead would have all of it end for the device, and whatever comes later, too.
        signed = max((target.created for target in found if _is_time(target.created) and target.created < until),
                     default="")
        self._stored.put_complete({
            "root": _digest(self._root_data), "timestamp": self._timestamp.digest, "until": until,
            "roles": roles, "digests": digests}, signed)
        return tuple(found)

    def _walk(self, top):
        """Yield (role, Document, names of its targets that count), each role once, in the order of their precedence."""
        taken, ended, visited = set(), [], set()

        def visit(role, document, allowed, tags):
            visited.add(role)
            names = [name for name, entry in document.signed.targets.items()
                     if name not in taken and all(may(name) for may in allowed)
                     and not any(over(name) for over in ended) and _is_for(entry.custom, tags)]
            taken.update(names)
            yield role, document, names
            delegations = document.signed.delegations
            for child in _children(delegations):
                if child.name in visited or len(visited) > MOST_ROLES:
                    continue
                may = [*allowed, child.covers]
                try:
                    below = self.role(child.name, document)
                except (TrustError, CorruptError) as err:
                    self._notify(f"{err}; its targets are passed over")
                else:
                    yield from visit(child.name, below, may, [*tags, *child.tags])
                if child.terminating:
                    ended.append(lambda name, may=may: all(each(name) for each in may))

        yield from visit(TARGETS, top, [], [])

    def find(self, path):
        """Return python-tuf's TargetFile of a path, of the role that is to be believed first; None for none."""
        waiting, visited = [(TARGETS, self._root)], set()
        while waiting and len(visited) <= MOST_ROLES:
            role, delegator = waiting.pop()
            if role in visited:
                continue
            document = self.role(role, delegator)
            if path in document.signed.targets:
                return document.signed.targets[path]
            visited.add(role)
            below = []
            for child in _children(document.signed.delegations, path):
                below.append((child.name, document))
                if child.terminating:
                    waiting = []
                    break
            waiting += reversed(below)
        return None


class _Child(NamedTuple):
    name: str
    covers: object
    terminating: bool
    # Lists of tags, to each of which its Targets are bound.
    tags: tuple = ()


def _children(delegations, path=None):
    """Return the roles that are delegated to, those for a ``path`` only when there is one."""
    if delegations is None:
        return []
    if delegations.roles is not None:
        return [_Child(role.name, role.is_delegated_path, role.terminating,
                       (role.unrecognized_fields[TAGS],) if TAGS in role.unrecognized_fields else ())
                for role in delegations.roles.values() if path is None or role.is_delegated_path(path)]
    succinct = delegations.succinct_roles
    if path is not None:
        return [_Child(succinct.get_role_for_target(path), None, True)]
    return [_Child(name, lambda each, name=name: succinct.get_role_for_target(each) == name, True)
            for name in succinct.get_roles()]


def _is_for(custom, bounds):
    """Tell whether a Target's tags are among those that each role on the way to it may sign for."""
    tags = custom.get("tags") if isinstance(custom, dict) else None
    return all(isinstance(bound, list) and isinstance(tags, list) and all(tag in bound for tag in tags)
               for bound in bounds)


def _is_time(text):
    try:
        return bool(from_text(text))
    except ValueError:
        return False
