# SPDX-License-Identifier: MIT
"""A change that is signed elsewhere: one file, made on one machine, signed on others and published on a third.

It has the documents as far as they are signed, and what a machine without the repository needs to say what they mean:
the roots, and the targets and waves that they are made from. Nothing in it is secret, and nothing in it is trusted:
``publish`` compares it with the repository.
"""

import json
from pathlib import Path
from typing import NamedTuple

from composeapps import durable
from composeapps.delivery.trust import TAGS
from composeapps.errors import CorruptError, NotFoundError, UsageError
from composeapps.oci.parsing import parse_json
from composeapps.signing import documents as docs
from composeapps.signing import targets as customs

_LARGEST = 16_000_000


class Change(NamedTuple):
    """``what`` is a sentence; ``state`` what it is made from, without snapshot and timestamp; ``documents`` as
    composeapps.signing.edit makes them."""

    what: str
    state: docs.State
    documents: dict


def save(path, change):
    """Write a Change to a file, durably. Raises StorageError."""
    value = {
        "what": change.what,
        "documents": {role: each.to_dict() for role, each in change.documents.items()},
        "base": {"roots": [each.to_dict() for each in change.state.roots],
                 "targets": change.state.targets.to_dict() if change.state.targets else None,
                 "waves": {name: each.to_dict() for name, each in change.state.waves.items()}},
    }
    with durable.storage_errors(f"writing the change {path}"):
        durable.write_file(path, json.dumps(value, indent=1).encode() + b"\n")


def load(path):
    """Return the Change in a file. Raises NotFoundError, UsageError, CorruptError."""
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise NotFoundError(f"change {path} does not exist") from None
    except OSError as err:
        raise UsageError(f"change {path} cannot be read: {err.strerror}") from None
    what = f"change {path}"
    value = parse_json(data, what, _LARGEST)
    try:
        base, documents = value["base"], value["documents"]
        roots = tuple(_document(each, "root", what) for each in base["roots"])
        waves = {str(name): _document(each, "targets", what) for name, each in base["waves"].items()}
        targets = _document(base["targets"], "targets", what) if base["targets"] else None
        made = {str(role): _document(each, "root" if role == "root" else "targets", what)
                for role, each in documents.items() if role not in docs.ONLINE}
        said = str(value["what"])
    except (KeyError, TypeError, AttributeError):
        raise CorruptError(f"{what} is none: 'composeapps target … --change FILE' makes one") from None
    if not made or not (roots or "root" in made):
        raise CorruptError(f"{what} changes nothing")
    return Change(said, docs.State(roots, None, None, targets, waves), made)


def _document(value, role, what):
    return docs.parse(json.dumps(value).encode(), role, what)


def merged(changes, paths):
    """Return one Change with the signatures of all, which are copies of one. Raises UsageError."""
    first = changes[0]
    for other, path in zip(changes[1:], paths[1:], strict=True):
        if {role: each.signed for role, each in other.documents.items()} != {
                role: each.signed for role, each in first.documents.items()}:
            raise UsageError(f"{path} is another change than {paths[0]}: publish one after the other")
        for role, document in other.documents.items():
            first.documents[role].signatures.update(document.signatures)
    return first


def check_base(change, state, place):
    """Raise UsageError when a repository is not as it was when a Change was made.

    Arguments:
        state: the State that is published, an empty one before the first.
        place: how the error names the repository.
    """
    for role, document in change.documents.items():
        published = state.version(role)
        new_wave = role not in docs.TOP and not published
        if document.signed.version != published + 1 and not new_wave:
            raise UsageError(f"{place} has {role} in version {published}, and the change makes version "
                             f"{document.signed.version} of it: make the change again from what is published")
    if [each.to_dict() for each in change.state.roots] != [each.to_dict() for each in state.roots]:
        raise UsageError(f"{place} has other roots than the change was made from: make it again")
    if state.targets and change.state.targets.to_dict() != state.targets.to_dict():
        raise UsageError(f"{place} has other targets than the change was made from: make it again")


def told(change):
    """Return lines that say what the documents of a Change do, by comparison; not what somebody wrote about it."""
    lines = []
    for role, document in sorted(change.documents.items()):
        signed = document.signed
        before = change.state.document(role)
        lines.append(f"{role} {before.signed.version if before else 'new'} -> {signed.version}, good until "
                     f"{docs.text_of(signed.expires)}")
        if role == "root":
            lines += _root_lines(before.signed if before else None, signed)
        else:
            lines += _target_lines(before.signed if before else None, signed)
    return lines


def _root_lines(before, after):
    for role in docs.TOP:
        old, new = before.roles[role] if before else None, after.roles[role]
        yield from _key_lines(role, old, new)


def _key_lines(role, old, new):
    was, now = set(old.keyids) if old else set(), set(new.keyids)
    for sign, keys in (("+", now - was), ("-", was - now)):
        for key in sorted(keys):
            yield f"  {sign} key {key[:12]} of {role}"
    if (old.threshold if old else None) != new.threshold:
        yield f"  {new.threshold} of {len(now)} keys sign {role}" + (f" (before: {old.threshold})" if old else "")


def _target_lines(before, after):
    old, new = before.targets if before else {}, after.targets
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            yield f"  - Target {path}"
        elif path not in old or old[path] != new[path]:
            target = customs.read(path, new[path], "targets")
            yield (f"  {'~' if path in old else '+'} Target {path} for {', '.join(target.hardware_ids)}, "
                   f"tags {', '.join(target.tags)}")
            yield from (f"      {app}: {uri}" for app, uri in sorted(target.apps.items()))
    roles, waves = docs.waves_of(before) if before else {}, docs.waves_of(after)
    for name in sorted(roles.keys() | waves.keys()):
        if name not in waves:
            yield f"  - wave {name}"
            continue
        if name not in roles:
            tags = waves[name].unrecognized_fields.get(TAGS) or ["any"]
            yield f"  + wave {name} for the tags {', '.join(map(str, tags))}"
        yield from _key_lines(name, roles.get(name), waves[name])


