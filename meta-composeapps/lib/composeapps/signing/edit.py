# SPDX-License-Identifier: MIT
"""What can be done to a repository. Each function returns the documents, unsigned, that are to be signed and published.

They change nothing and need no key: which may come later, on another machine.
"""

from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from composeapps.delivery.trust import TAGS
from composeapps.errors import NotFoundError, UsageError
from composeapps.patterns import Pattern
from composeapps.signing import documents as docs
from composeapps.signing import targets as customs

# Names of waves are names of files.
_WAVE = Pattern(r"[a-z][a-z0-9-]{0,63}")


def init(keys, thresholds, days, now):
    """Return the first root and targets.

    Arguments:
        keys: {role of docs.TOP: [Key]}.
        thresholds: {role: how many of its keys have to sign}, 1 where it says nothing.
        days: {role: for how many days it is signed}, as docs.DEFAULT_DAYS where it says nothing.
        now: the time.

    Raises UsageError.
    """
    periods = {role: _days(days.get(role, docs.DEFAULT_DAYS[role]), role) for role in docs.TOP}
    root = Root(expires=now, unrecognized_fields={docs.DAYS: periods})
    for role in docs.TOP:
        for key in keys[role]:
            root.add_key(key.public, role)
        root.roles[role].threshold = _threshold(thresholds.get(role, 1), root.roles[role].keyids, role)
    root.expires = _until(now, periods["root"])
    targets = Targets(expires=_until(now, periods["targets"]))
    return {"root": Metadata(root), "targets": Metadata(targets)}


def _until(now, days):
    from datetime import timedelta

    return now + timedelta(days=days)


def _days(days, role):
    if not 0 < days <= docs.MOST_DAYS:
        raise UsageError(f"{role} cannot be signed for {days} days: 1 to {docs.MOST_DAYS}")
    return days


def _threshold(threshold, keyids, role):
    if not 0 < threshold <= len(keyids):
        raise UsageError(f"{role} has {len(keyids)} key{'s' if len(keyids) != 1 else ''}, of which {threshold} cannot "
                         "have to sign: name more keys or a lower threshold")
    return threshold


def _next(state, role, now, documents=None):
    """Return the next document of a role, one that is being made already where there is."""
    found = (documents or {}).get(role)
    if found is None:
        document = state.document(role)
        if document is None:
            raise NotFoundError(f"there is no wave '{role}': the waves are {', '.join(sorted(state.waves)) or 'none'}")
        found = docs.next_of(document, docs.days_of(state.root, role), now)
    return found


def create(state, target, now, wave=None):
    """Return documents with one Target more, signed by targets or by a wave.

    Arguments:
        target: a targets.Target.
        wave: the name of the wave, None for targets.

    Raises UsageError, NotFoundError.
    """
    role = wave or "targets"
    document = _next(state, role, now)
    if wave:
        _check_wave(state, wave, target)
    customs.check_unused(state, target)
    _check_fitting(target)
    document.signed.targets[target.path] = TargetFile(0, {"sha256": customs.NO_CONTENT}, target.path,
                                                      {"custom": target.custom(docs.text_of(now))})
    return {role: document}


def _check_fitting(target):
    if not target.tags or not target.hardware_ids:
        raise UsageError(f"Target {target.path} is for no tag or no hardware: no device would take it")


def _check_wave(state, wave, target):
    delegated = docs.waves_of(state.targets.signed)[wave]
    allowed = delegated.unrecognized_fields.get(TAGS)
    if allowed is not None and not set(target.tags) <= set(allowed):
        raise UsageError(f"the wave {wave} may sign for the tags {', '.join(allowed)} only, not "
                         f"{', '.join(sorted(set(target.tags) - set(allowed)))}")
    if not delegated.is_delegated_path(target.path):
        raise UsageError(f"the wave {wave} may sign Targets named {', '.join(delegated.paths or ())} only, not "
                         f"{target.path}")


def promote(state, name, tags, now, drop=()):
    """Return documents in which a Target is for more tags, signed by targets whoever signed it before.

    Arguments:
        name: NAME-VERSION.
        tags: those that it gets.
        drop: those that it loses.

    Raises NotFoundError, UsageError.
    """
    before = customs.find(state, name)
    lacking = set(drop) - set(before.tags)
    if lacking:
        raise UsageError(f"Target {name} is not for the tag {', '.join(sorted(lacking))}: its tags are "
                         f"{', '.join(before.tags)}")
    after = before._replace(tags=tuple(dict.fromkeys([tag for tag in before.tags if tag not in drop]
                                                     + [customs.check_tag(tag) for tag in tags])), role="targets")
    if after == before:
        raise UsageError(f"Target {name} is for {', '.join(before.tags)} already: nothing is to be done")
    _check_fitting(after)
    customs.check_version(state, after)
    document = _next(state, "targets", now)
    document.signed.targets[name] = TargetFile(0, {"sha256": customs.NO_CONTENT}, name,
                                               {"custom": after.custom(docs.text_of(now))})
    return {"targets": document}


def revoke(state, name, now):
    """Return documents without a Target, whose name is never used again. Raises NotFoundError."""
    customs.find(state, name)
    made = {}
    for role in ("targets", *state.waves):
        if name in state.document(role).signed.targets:
            document = made[role] = _next(state, role, now)
            del document.signed.targets[name]
            document.signed.unrecognized_fields[docs.REVOKED] = {**customs.revoked(document.signed),
                                                                 name: docs.text_of(now)}
    return made


def renew(state, roles, now, days=None):
    """Return documents of roles (of root, targets and waves) that say the same, and for longer.

    Arguments:
        days: {role: for how many days from now on it is signed}, noted in the root, which is then renewed as well.
    """
    roles = [role for role in dict.fromkeys(roles) if role not in docs.ONLINE]
    made = {}
    if days:
        root = made["root"] = _next(state, "root", now)
        kept = root.signed.unrecognized_fields.get(docs.DAYS)
        root.signed.unrecognized_fields[docs.DAYS] = {
            **(kept if isinstance(kept, dict) else {}), **{role: _days(count, role) for role, count in days.items()}}
        root.signed.expires = _until(now, docs.days_of(root.signed, "root"))
    for role in roles:
        made[role] = _next(state, role, now, made)
        made[role].signed.expires = _until(now, docs.days_of(made.get("root", state.roots[-1]).signed, role))
    return made


def rotate(state, roles, now, add=(), remove=(), threshold=None):
    """Return documents in which roles have other keys.

    Arguments:
        roles: of docs.TOP, or names of waves.
        add: Keys.
        remove: key ids.
        threshold: how many have to sign from now on; None for as many as before.

    Raises UsageError, NotFoundError.
    """
    made = {}
    for role in roles:
        owner = "root" if role in docs.TOP else "targets"
        if owner == "targets":
            _next(state, role, now)
        delegator = made[owner] = _next(state, owner, now, made)
        found = delegator.signed.get_delegated_role(role)
        for keyid in remove:
            if keyid not in found.keyids:
                raise UsageError(f"the key {keyid[:12]} does not sign {role}: name the roles that it signs, or revoke "
                                 "it with 'composeapps target revoke --stolen'")
            delegator.signed.revoke_key(keyid, role)
        for key in add:
            delegator.signed.add_key(key.public, role)
        found.threshold = _threshold(found.threshold if threshold is None else threshold, found.keyids, role)
        document = state.document(role)
        # What the keys signed before has to be good under the new ones.
        if role not in ("root", *docs.ONLINE) and not docs.is_signed(document, role, delegator.signed):
            made[role] = _next(state, role, now, made)
    if not made or all(_says_the_same(state, role, each) for role, each in made.items()):
        raise UsageError(f"{', '.join(roles)} would have the same keys as before: nothing is to be done")
    return made


def _says_the_same(state, role, document):
    before, after = (each.signed.to_dict() for each in (state.document(role), document))
    return all(before.get(key) == after.get(key) for key in before.keys() | after.keys()
               if key not in ("version", "expires"))


def roles_with(state, keyid):
    """Return the roles, waves too, that a key signs."""
    found = [role for role in docs.TOP if keyid in state.root.roles[role].keyids]
    return [*found, *(name for name, role in docs.waves_of(state.targets.signed).items() if keyid in role.keyids)]


def add_wave(state, name, keys, now, threshold=1, tags=(), paths=("*",)):
    """Return documents with one wave more: Targets that keys of its own sign, for its own tags only.

    Arguments:
        name: of the wave.
        keys: Keys.
        threshold: how many of them have to sign.
        tags: the tags that its Targets may have.
        paths: patterns of their names, as TUF has them.

    Raises UsageError.
    """
    if not _WAVE.fullmatch(name) or name in docs.TOP:
        raise UsageError(f"'{name}' cannot be the name of a wave: lower-case letters, digits and '-', beginning with a "
                         f"letter, and none of {', '.join(docs.TOP)}")
    if name in state.waves:
        raise UsageError(f"there is a wave '{name}' already: 'composeapps target rotate' changes its keys")
    if not tags:
        raise UsageError(f"the wave {name} has no tag: say with --tag which devices it may sign for")
    document = _next(state, "targets", now)
    if document.signed.delegations is None:
        document.signed.delegations = Delegations({}, {})
    document.signed.delegations.roles[name] = DelegatedRole(
        name, [], 1, False, list(paths),
        unrecognized_fields={TAGS: [customs.check_tag(tag) for tag in dict.fromkeys(tags)]})
    for key in keys:
        document.signed.add_key(key.public, name)
    role = document.signed.delegations.roles[name]
    role.threshold = _threshold(threshold, role.keyids, name)
    # A wave of that name may have been there before: its versions are not used again.
    before = state.snapshot.signed.meta.get(f"{name}.json")
    first = Metadata(Targets(expires=_until(now, docs.days_of(state.root, name))))
    first.signed.version = before.version + 1 if before else 1
    return {"targets": document, name: first}


def remove_wave(state, name, now):
    """Return documents without a wave, and without its Targets. Raises NotFoundError."""
    _next(state, name, now)
    document = _next(state, "targets", now)
    role = document.signed.delegations.roles[name]
    for keyid in list(role.keyids):
        document.signed.revoke_key(keyid, name)
    del document.signed.delegations.roles[name]
    gone = {path: docs.text_of(now) for path in state.waves[name].signed.targets
            if path not in document.signed.targets}
    document.signed.unrecognized_fields[docs.REVOKED] = {
        **customs.revoked(document.signed), **customs.revoked(state.waves[name].signed), **gone}
    if not document.signed.delegations.roles:
        document.signed.delegations = None
    return {"targets": document}
