# SPDX-License-Identifier: MIT
"""A Target: one version of all apps of a kind of device, as its ``custom`` in targets.json describes it.

The fields are those that LmP's devices understand. A Target has no file: its length is 0, its hash that of nothing, and
its apps are bound by their digests.
"""

from typing import NamedTuple

from composeapps.errors import CorruptError, NotFoundError, UsageError
from composeapps.oci.reference import parse_pinned
from composeapps.patterns import Pattern
from composeapps.signing import documents as docs

NO_CONTENT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
# What a 32-bit number holds: there are devices that read it into one.
LAST_VERSION = 2**31 - 1
MOST_APPS = 200
_WORD = Pattern(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,98}[A-Za-z0-9])?")
_OWN = ("name", "version", "hardwareIds", "tags", "targetFormat", "docker_compose_apps", "createdAt", "updatedAt")


class Target(NamedTuple):
    """``name`` without the version; ``apps`` is {app: pinned reference as a text}; ``role`` who signs it;
    ``created`` when it was made, a text; ``others`` the fields of ``custom`` that are somebody else's."""

    name: str
    version: int
    apps: dict
    tags: tuple
    hardware_ids: tuple
    created: str = ""
    role: str = "targets"
    others: dict = {}

    @property
    def path(self):
        """Its key in targets.json."""
        return f"{self.name}-{self.version}"

    def custom(self, now):
        """Return the object ``custom``; ``now`` is a text."""
        found = {**self.others, "name": self.name, "version": str(self.version),
                 "hardwareIds": list(self.hardware_ids), "tags": list(self.tags), "targetFormat": "OSTREE",
                 "docker_compose_apps": {app: {"uri": uri} for app, uri in sorted(self.apps.items())},
                 "createdAt": self.created or now}
        return {**found, "updatedAt": now} if self.created else found


def make(name, version, apps, tags, hardware_ids, arch=None):
    """Return a Target of what somebody asked for.

    Arguments:
        name: what the key begins with.
        version: a number.
        apps: Reference objects, pinned.
        tags, hardware_ids: texts.
        arch: of the machines, "x86_64" for example, or None.

    Raises UsageError.
    """
    _word(name, "name of a Target")
    if not 0 < version <= LAST_VERSION:
        raise UsageError(f"{version} cannot be the version of a Target: 1 to {LAST_VERSION}")
    found = {}
    for ref in apps:
        if str(ref.app_name) != ref.path.rpartition("/")[2]:
            raise UsageError(f"app {ref}: its name, '{ref.app_name}', has to be the last part of its repository's: "
                             "publish it as HOST/FACTORY/NAME")
        if found.setdefault(str(ref.app_name), str(ref)) != str(ref):
            raise UsageError(f"app {ref.app_name} is given twice: {found[str(ref.app_name)]} and {ref}")
    if len(found) > MOST_APPS:
        raise UsageError(f"Target {name}-{version} has {len(found)} apps, more than the {MOST_APPS} allowed")
    hardware_ids = tuple(dict.fromkeys(_word(each, "hardware id") for each in hardware_ids))
    return Target(name, version, found, tuple(dict.fromkeys(map(check_tag, tags))), hardware_ids,
                  others={"arch": _word(arch, "architecture")} if arch else {})


def check_tag(tag):
    """Return a tag. Raises UsageError for what cannot be one."""
    return _word(tag, "tag")


def _word(text, what):
    if not _WORD.fullmatch(text):
        raise UsageError(f"{ascii(text[:120])} cannot be a {what}: letters, digits, '.', '_', '+' and '-', a letter or "
                         "digit first and last, at most 100 of them")
    return text


def read(path, target_file, role):
    """Return the Target of an entry in targets.json. Raises CorruptError."""
    custom = target_file.custom
    try:
        apps = {app: entry["uri"] for app, entry in (custom.get("docker_compose_apps") or {}).items()}
        for app, uri in apps.items():
            parse_pinned(uri, what=f"app {app} of Target {path}")
        texts = [*custom["tags"], *custom["hardwareIds"], custom["name"]]
        # What Python takes for a number is more than digits.
        if not custom["version"].isascii() or not custom["version"].isdecimal() or not all(
                isinstance(text, str) for text in texts):
            raise ValueError
        return Target(custom["name"], int(custom["version"]), apps, tuple(custom["tags"]),
                      tuple(custom["hardwareIds"]), str(custom.get("createdAt", "")), role,
                      {key: value for key, value in custom.items() if key not in _OWN})
    except (KeyError, TypeError, AttributeError, ValueError, UsageError):
        raise CorruptError(f"Target {path} of {role} has no 'custom' that devices understand: revoke it") from None


def all_of(state):
    """Return all Targets, those of waves last, by version. Raises CorruptError."""
    return [target for role in ("targets", *sorted(state.waves)) for target in sorted(
        (read(path, each, role) for path, each in state.document(role).signed.targets.items()),
        key=lambda target: (target.version, target.path))]


def find(state, name):
    """Return the Target NAME-VERSION, that of targets before those of waves. Raises NotFoundError, CorruptError."""
    for role in ("targets", *sorted(state.waves)):
        found = state.document(role).signed.targets.get(name)
        if found is not None:
            return read(name, found, role)
    if name in all_revoked(state):
        raise NotFoundError(f"Target {name} was revoked at {all_revoked(state)[name]}")
    near = ", ".join(target.path for target in all_of(state)[-3:]) or "none"
    raise NotFoundError(f"there is no Target {ascii(name[:120])}; the last ones are {near}")


def revoked(signed):
    """Return {name: when it was revoked} of a Targets."""
    found = signed.unrecognized_fields.get(docs.REVOKED)
    return dict(found) if isinstance(found, dict) else {}


def all_revoked(state):
    """Return {name: when it was revoked} of all roles."""
    return {name: when for role in (*state.waves, "targets")
            for name, when in revoked(state.document(role).signed).items()}


def next_version(state, name):
    """Return the version after all that there are or were, of whatever name."""
    versions = [target.version for target in all_of(state)]
    for path in all_revoked(state):
        number = path.rpartition("-")[2]
        versions += [int(number)] if number.isascii() and number.isdecimal() else []
    return max(versions, default=0) + 1


def check_unused(state, target):
    """Raise UsageError when a Target's name or version was used before."""
    when = all_revoked(state).get(target.path)
    if when:
        raise UsageError(f"Target {target.path} was there and was revoked at {when}: take version "
                         f"{next_version(state, target.name)}")
    for other in all_of(state):
        if other.path == target.path:
            raise UsageError(f"there is a Target {target.path} already: take version "
                             f"{next_version(state, target.name)}")
    check_version(state, target)


def check_version(state, target):
    """Raise UsageError when devices would see two Targets of one version."""
    for other in all_of(state):
        if (other.path != target.path and other.version == target.version and set(other.tags) & set(target.tags)
                and set(other.hardware_ids) & set(target.hardware_ids)):
            raise UsageError(f"Target {other.path} has the version {target.version} for the same tag and hardware: "
                             f"devices could not tell which to take; {next_version(state, target.name)} is free")


def newer(state, target):
    """Return the Targets of a higher version that devices for which a Target is would rather take."""
    return [other for other in all_of(state) if other.version > target.version
            and set(other.tags) & set(target.tags) and set(other.hardware_ids) & set(target.hardware_ids)]
