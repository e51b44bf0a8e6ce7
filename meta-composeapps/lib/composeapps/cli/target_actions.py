# SPDX-License-Identifier: MIT
"""What the commands of composeapps target do."""

from pathlib import Path

from composeapps.cli import output, target
from composeapps.delivery.trust import TAGS
from composeapps.errors import NotFoundError, UsageError
from composeapps.signing import change as changes
from composeapps.signing import documents as docs
from composeapps.signing import edit, keys
from composeapps.signing import targets as customs
from composeapps.signing.repository import Repository, lacks, told_missing

# Days before its end at which what is signed is told about.
_SOON = {"root": 60, "targets": 30, "snapshot": 7, "timestamp": 2}


def run(args):
    """Run the command of parsed arguments; return the exit status or None."""
    return {"init": _init, "key": _key, "create": _create, "list": _list, "show": _show, "promote": _promote,
            "revoke": _revoke, "renew": _renew, "rotate": _rotate, "wave": _wave, "sign": _sign,
            "publish": _publish}[args.action](args)


def _phrases(args):
    return keys.PassPhrases(args.passphrase_file)


def _keys(args, phrases, more=()):
    return keys.find_all([*args.key, *more], args.keys, phrases)


def _changing(args, make, what, more=()):
    """Read the repository, have documents made of it, and publish them or write them into a file.

    Arguments:
        make: called with (state, now), returns documents.
        what: the change in a few words.
        more: key files besides those of --key and --keys.
    """
    signing = _keys(args, _phrases(args), more)
    repository = Repository(args.repository)
    if not repository.directory.is_dir():
        # To read it says so.
        repository.read()
    with repository.alone(output.notify):
        state = repository.read()
        now = docs.clock(state)
        _finish(args, repository, state, make(state, now), what, signing, now)


def _finish(args, repository, state, documents, what, signing, now):
    docs.sign(state, documents, signing)
    lacking = docs.missing(state, documents)
    change = changes.Change(what, state, documents)
    if args.change:
        changes.save(args.change, change)
    elif lacking:
        raise UsageError(f"{told_missing(lacking)}; with --change FILE it can be signed elsewhere")
    else:
        repository.publish(state, documents, signing, now)
    _tell(args, change, lacking, None if args.change else state)
    for role, days in ({} if args.change else _ending(repository.read(), now)).items():
        output.notify(f"composeapps: {role} expires in {days} days: renew it with 'composeapps target renew'")


def _tell(args, change, lacking, published):
    if args.json:
        output.print_json({
            "what": change.what, "published": published is not None,
            "documents": {role: each.signed.version for role, each in change.documents.items()},
            "missing": {role: {"signatures": count, "keys": sorted(found)}
                        for role, (count, found) in lacking.items()}})
        return
    print(change.what)
    for line in changes.told(change):
        print(f"  {line}")
    if published is None:
        if lacking:
            print(lacks(lacking))
        else:
            print("all signatures are there: 'composeapps target publish' publishes it")


def _ending(state, now):
    """Return {role: days left} of what has to be renewed soon."""
    found = {}
    for role in (*docs.TOP, *state.waves):
        left = (state.document(role).signed.expires - now).total_seconds() / 86_400
        period = docs.days_of(state.root, role)
        if left < min(_SOON.get(role, _SOON["targets"]), period / 3):
            found[role] = max(round(left), 0)
    return found


def _init(args):
    days, phrases = target.parse_days(args.days), _phrases(args)
    given = {"root": args.root_key, "targets": args.targets_key, "online": args.online_key}
    repository = Repository(args.repository)
    if repository.is_there():
        raise UsageError(f"{args.repository} has a repository already: nothing was changed")
    found = {role: [keys.find(path, phrases) for path in paths] or [_made(args, role, phrases)]
             for role, paths in given.items()}
    of = {"root": found["root"], "targets": found["targets"], "snapshot": found["online"], "timestamp": found["online"]}
    with repository.alone(output.notify):
        if repository.is_there():
            raise UsageError(f"{args.repository} has a repository already: nothing was changed")
        state = docs.State()
        now = docs.clock(state)
        documents = edit.init(of, {"root": args.root_threshold, "targets": args.targets_threshold}, days, now)
        signing = list({key.id: key for role in found.values() for key in role}.values())
        signing += [key for key in _keys(args, phrases) if not any(key.id == each.id and each.can_sign
                                                                   for each in signing)]
        _finish(args, repository, state, documents, f"repository {args.repository}", signing, now)


def _made(args, role, phrases):
    if not args.keys:
        raise UsageError(f"no key of {role}: name one with --{role}-key, or with --keys a directory that "
                         f"{role}.pem is made in")
    path = Path(args.keys[0]) / f"{role}.pem"
    if path.exists():
        return keys.find(path, phrases)
    made = keys.make(path, phrases)
    output.notify(f"made the key {path}")
    return made


def _key(args):
    if bool(args.uri) != bool(args.public):
        raise UsageError("--uri and --public go together")
    made = keys.note_elsewhere(args.file, args.uri, args.public) if args.uri else \
        keys.make(args.file, _phrases(args), args.type)
    if args.json:
        output.print_json({"file": args.file, "id": made.id, "type": made.public.keytype})
    else:
        print(f"key {made.id}")


def _create(args):
    refs = _resolved(args)

    def make(state, now):
        tags = args.tag
        if args.wave and not tags and args.wave in state.waves:
            tags = docs.waves_of(state.targets.signed)[args.wave].unrecognized_fields.get(TAGS) or []
        if not tags:
            raise UsageError("no tag: say with --tag which devices it is for")
        version = args.number if args.number is not None else customs.next_version(state, args.name)
        made = customs.make(args.name, version, refs, tags, args.hardware, args.arch)
        for other in customs.newer(state, made)[:1]:
            output.notify(f"composeapps: no device that has the newer {other.path} will take {made.path}")
        return edit.create(state, made, now, args.wave)

    _changing(args, make, f"a new Target {args.name}")


def _resolved(args):
    """Return the References of --app options, pinned; by default the registry is asked for each app."""
    from composeapps.app.tree import RegistrySource, load_app
    from composeapps.oci.reference import parse, parse_pinned
    from composeapps.registry.client import RegistryClient, given_endpoints

    if not args.app:
        raise UsageError("no app: name each with --app HOST/FACTORY/NAME@sha256:…")
    if args.unchecked:
        return [_pinned(parse_pinned(text, what="app")) for text in args.app]
    refs = [parse(text, what="app") for text in args.app]
    client = RegistryClient(endpoints=given_endpoints(args.endpoint))
    try:
        source, found = RegistrySource(client), []
        for ref in refs:
            found.append(_pinned(ref if ref.digest else source.resolve(ref)))
            load_app(source, found[-1])
        return found
    finally:
        client.close()


def _pinned(ref):
    return ref.pinned(ref.digest)


def _list(args):
    state = Repository(args.repository).read()
    targets = [each for each in customs.all_of(state) if args.tag in (None, *each.tags)
               and args.hardware in (None, *each.hardware_ids)]
    roles = {role: state.document(role).signed for role in (*docs.TOP, *state.waves)}
    if args.json:
        output.print_json({
            "targets": [_value(each) for each in targets],
            "roles": {role: {"version": each.version, "expires": docs.text_of(each.expires),
                             "keys": _keyids(state, role), "threshold": _by(state, role).threshold}
                      for role, each in roles.items()},
            "revoked": customs.all_revoked(state)})
        return
    output.print_table(("TARGET", "TAGS", "HARDWARE", "APPS", "SIGNED BY"), [
        (each.path, ",".join(each.tags), ",".join(each.hardware_ids), ",".join(each.apps) or "-", each.role)
        for each in targets])
    print()
    output.print_table(("ROLE", "VERSION", "GOOD UNTIL", "SIGNED BY"), [
        (role, each.version, docs.text_of(each.expires),
         f"{_by(state, role).threshold} of {', '.join(key[:12] for key in _keyids(state, role))}")
        for role, each in roles.items()])


def _by(state, role):
    return docs.authority(state, {}, role)[0].get_delegated_role(role)


def _keyids(state, role):
    return list(_by(state, role).keyids)


def _value(each):
    return {"target": each.path, "name": each.name, "version": each.version, "tags": list(each.tags),
            "hardware_ids": list(each.hardware_ids), "apps": each.apps, "created": each.created, "role": each.role}


def _show(args):
    found = customs.find(Repository(args.repository).read(), args.target)
    if args.json:
        output.print_json(_value(found))
        return
    print(f"{found.path}, for {', '.join(found.hardware_ids)}, tags {', '.join(found.tags)}")
    print(f"made {found.created or 'at an unknown time'}, signed by {found.role}\n")
    output.print_table(("APP", "REFERENCE"), sorted(found.apps.items()))


def _promote(args):
    if not args.tag and not args.drop_tag:
        raise UsageError("nothing to do: name a tag with --tag or --drop-tag")
    _changing(args, lambda state, now: edit.promote(state, args.target, args.tag, now, args.drop_tag),
              f"Target {args.target} for other tags")


def _revoke(args):
    if (args.target is None) == (args.stolen is None):
        raise UsageError("name a Target, or a key with --stolen")
    if args.add and args.stolen is None:
        raise UsageError("--add goes with --stolen")
    if args.target is not None:
        _changing(args, lambda state, now: edit.revoke(state, args.target, now), f"Target {args.target} is revoked")
        return
    phrases = _phrases(args)

    def make(state, now):
        keyid = _keyid(state, args.stolen, phrases)
        return edit.rotate(state, edit.roles_with(state, keyid), now, [keys.find(path, phrases) for path in args.add],
                           [keyid])

    _changing(args, make, f"the key {args.stolen} is revoked", args.add)


def _keyid(state, text, phrases):
    """Return the id of a key that is named by its file, its id or the id's beginning. Raises NotFoundError."""
    if Path(text).suffix in (keys.PUBLIC, keys.PRIVATE, keys.ELSEWHERE):
        wanted = keys.find(text, phrases).id
    else:
        wanted = text
    known = {keyid for role in (*docs.TOP, *state.waves) for keyid in _keyids(state, role)}
    found = [keyid for keyid in known if len(wanted) >= 8 and keyid.startswith(wanted)]
    if len(found) != 1:
        raise NotFoundError(f"no role is signed by the key {ascii(text[:120])}: name it by its file, or by its id, as "
                            "'composeapps target list' shows it")
    return found[0]


def _renew(args):
    days = target.parse_days(args.days)
    signing = _keys(args, _phrases(args))
    repository = Repository(args.repository)
    if args.change and not (args.role or days):
        raise UsageError("--change goes with --role or --days: the online keys sign where the repository is")
    for role in args.role:
        if role in docs.ONLINE:
            raise UsageError(f"--role {role} is not needed: {role} is renewed in any case")
    if not repository.directory.is_dir():
        repository.read()
    with repository.alone(output.notify):
        state = repository.read()
        now = docs.clock(state, trusted=args.trust_clock)
        documents = edit.renew(state, args.role, now, days)
        if documents:
            _finish(args, repository, state, documents, f"{', '.join(documents)} renewed", signing, now)
            return
        repository.publish(state, {}, signing, now)
        state = repository.read()
        if args.json:
            output.print_json({role: {"version": state.version(role), "expires": docs.text_of(
                state.document(role).signed.expires)} for role in docs.TOP})
        else:
            print(f"timestamp {state.version('timestamp')}, good until "
                  f"{docs.text_of(state.timestamp.signed.expires)}")
        for role, left in _ending(state, now).items():
            output.notify(f"composeapps: {role} expires in {left} days: renew it with 'composeapps target renew --role "
                          f"{role}'")


def _rotate(args):
    phrases = _phrases(args)

    def make(state, now):
        return edit.rotate(state, args.roles, now, [keys.find(path, phrases) for path in args.add],
                           [_keyid(state, text, phrases) for text in args.remove], args.threshold)

    _changing(args, make, f"other keys of {', '.join(args.roles)}", args.add)


def _wave(args):
    if args.remove:
        if args.wave_key or args.tag or args.path:
            raise UsageError("--remove goes without --wave-key, --tag and --path")
        _changing(args, lambda state, now: edit.remove_wave(state, args.wave, now), f"the wave {args.wave} is gone")
        return
    found = [keys.find(path, _phrases(args)) for path in args.wave_key]
    if not found:
        raise UsageError("no key of the wave: name one with --wave-key")
    _changing(args, lambda state, now: edit.add_wave(state, args.wave, found, now, args.threshold, args.tag,
                                                     args.path or ("*",)), f"a new wave {args.wave}", args.wave_key)


def _sign(args):
    signing = _keys(args, _phrases(args))
    change = changes.load(args.change)
    if not args.json:
        for line in changes.told(change):
            print(line, flush=True)
    done = docs.sign(change.state, change.documents, signing)
    if done:
        changes.save(args.change, change)
    lacking = docs.missing(change.state, change.documents)
    if args.json:
        output.print_json({"signed": [{"role": role, "key": key} for role, key in done],
                           "missing": {role: {"signatures": count, "keys": sorted(found)}
                                       for role, (count, found) in lacking.items()}})
    for role, key in done if not args.json else ():
        print(f"signed {role} with {key[:12]}")
    if signing and not done:
        raise UsageError("none of the keys may sign this change, or all of them have: nothing was signed")
    if lacking and not args.json:
        print(lacks(lacking))


def _publish(args):
    signing = _keys(args, _phrases(args))
    change = changes.merged([changes.load(path) for path in args.changes], args.changes)
    repository = Repository(args.repository)
    with repository.alone(output.notify):
        state = repository.read() if repository.is_there() else docs.State()
        now = docs.clock(state)
        changes.check_base(change, state, args.repository)
        change = change._replace(state=state)
        docs.sign(state, change.documents, signing)
        for role, document in change.documents.items():
            if document.signed.expires <= now:
                raise UsageError(f"{role} of the change expired at {docs.text_of(document.signed.expires)}: make the "
                                 "change again")
        repository.publish(state, change.documents, signing, now)
        _tell(args, change, {}, state)
