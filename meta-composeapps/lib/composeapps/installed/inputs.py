# SPDX-License-Identifier: MIT
"""What docker compose reads of an app: verified copies in a directory that is the agent's alone.

A container that mounts its app's directory could change what docker compose reads there, the variables in
``.env`` for example, and so have dockerd give it any file of the host at the next start. So compose gets

- the compose file as it was published, with the paths of what it reads itself made absolute;
- ``.env``, and the files of ``env_file`` and ``label_file``, from the bundle;
- the files of configs and secrets that the bundle has: dockerd mounts these copies.

Their names are made of their content and mode, so a file that stays the same stays the same file for the
containers that have it mounted. What the bundle lacks of these is the owner's of the device: it is read
where no container may write, and ``env_file`` elsewhere too, since it sets nothing but its service's variables.
Mounted directories stay the app's own, so that all that mount them see the same.
"""

import hashlib
import json
import os
import posixpath
from typing import NamedTuple

from composeapps import beneath
from composeapps.app import bundle as bundles
from composeapps.app import filerefs
from composeapps.engine import look
from composeapps.errors import CorruptError
from composeapps.installed import expected, mounts
from composeapps.installed.placed import Placed
from composeapps.oci.digests import sha256, stream_sha256

FILES, VERSIONS = "files", "versions"
_MAX_OWN = 1024 * 1024
# More places than the services of an app mount, with the links on their way.
_MAX_LINKS = 10_000


class Inputs(NamedTuple):
    """What a version's compose reads, and what its services mount.

    ``compose`` and ``environment`` are names of files below FILES, ``files`` the names of all that it needs
    there; ``sources`` are the places that its services mount, ``written`` those that are the user's, ``links`` are
    (name, target) of the bundle's. ``published`` is the digest of the compose file as it was published, "" where an
    older agent did not note it.
    """

    compose: str
    environment: str
    files: tuple
    sources: tuple
    written: tuple
    links: tuple = ()
    published: str = ""


class Plan:
    """What is to be in the agent's directory for a version.

    Arguments:
        placed: the Placed.
        root: the Root of the compose root.
        app: the App.
        value: its compose file, a mapping.
        index: its bundle's {name: Member}.
        environment: the text of the bundle's .env, None without one.
        places: the places that are the user's.
        notify: called with a sentence.

    ``members`` maps names below FILES to those of the bundle's files that are to be there; ``own`` to contents
    (bytes) of others.
    """

    def __init__(self, placed, root, app, value, index, environment, places, notify=lambda text: None):
        self._placed, self._root, self._app, self._index, self._places = placed, root, app, index, places
        self._notify = notify
        self.members, self.own = {}, {}
        env_file = self._environment_file()
        text = environment if environment is not None else self.own.get(env_file, b"").decode(errors="replace")
        self._paths = mounts.Paths(placed.directory, text)
        self.sources = {binding.place for binding in mounts.bindings(value, self._paths)}
        changed = self._rewritten(value)
        if changed == value:
            compose = self._keep(app.compose)
        else:
            compose = self._keep(json.dumps(changed, default=str).encode() + b"\n")
        self.inputs = Inputs(compose, env_file, tuple(sorted({*self.members, *self.own})), tuple(sorted(self.sources)),
                             tuple(sorted(places)), tuple(sorted(
                                 (name, member.target) for name, member in index.items()
                                 if member.kind == bundles.LINK)), sha256(app.compose))

    def _environment_file(self):
        name = _followed(self._index, expected.ENVIRONMENT_FILE)
        if name is not None:
            return self._member(name)
        record = self._placed.read()
        if record is not None and expected.ENVIRONMENT_FILE in record.members:
            # The one that is there, if any, is an older version's.
            return self._keep(b"")
        data = self._of_owner(expected.ENVIRONMENT_FILE)
        if data is not None and mounts.within(expected.ENVIRONMENT_FILE, self._places):
            self._notify(f"{self._placed.name}: {self._placed.directory / expected.ENVIRONMENT_FILE} is not of the "
                         "bundle, and a container may write it: docker compose does not get it")
            data = None
        return self._keep(data or b"")

    def _rewritten(self, value):
        """Return the compose file with absolute paths of what is read."""
        value = json.loads(json.dumps(value, default=str))
        for each in filerefs.references(value):
            if each.kind in (filerefs.ENV_FILE, filerefs.LABEL_FILE, filerefs.SECCOMP):
                each.replace(self._read(each.path))
            elif each.kind in (filerefs.CONFIG, filerefs.SECRET):
                each.replace(self._mounted(each.path))
            elif each.kind == filerefs.EXTENDS:
                self._refuse_written(each.path, f"service '{each.owner}' extends")
            elif each.kind == filerefs.INCLUDE:
                self._refuse_written(each.path, "it includes")
        return value

    def _read(self, path):
        """Return the absolute path of a file that compose reads."""
        place = self._paths.place(path)
        if place is None:
            return path
        name = _followed(self._index, place)
        if name is not None:
            return self._path(self._member(name))
        data = self._of_owner(place)
        # compose says itself what it misses.
        return self._path(self._keep(data) if data is not None else f"absent/{place}")

    def _mounted(self, path):
        """Return the absolute path of a file that dockerd mounts."""
        place = self._paths.place(path)
        name = _followed(self._index, place) if place is not None else None
        if name is not None:
            return self._path(self._member(name))
        if place is not None:
            self.sources.add(place)
        return path

    def _refuse_written(self, path, what):
        place = self._paths.place(path)
        if place is not None and mounts.within(place, self._places):
            raise CorruptError(f"app {self._app.ref}: {what} '{path}', and a container may write that file: publish "
                               "the app with a compose file of one piece, or mount another directory")

    def _member(self, name):
        member = self._index[name]
        key = f"{member.mode:o}-{member.digest.partition(':')[2]}"
        self.members[key] = name
        return key

    def _keep(self, data):
        key = f"600-{hashlib.sha256(data).hexdigest()}"
        self.own[key] = data
        return key

    def _of_owner(self, place):
        """Return a file of the device's owner, reached without any link, None when there is none."""
        try:
            return self._root.read(f"{self._placed.name}/{place}", _MAX_OWN)
        except OSError:
            return None

    def _path(self, key):
        # A dollar sign in a path is one for compose, too.
        return str(self._placed.path(f"{FILES}/{key}")).replace("$", "$$")

    def missing(self):
        """Return the names below FILES of what is not there as it should be. Raises OSError."""
        return set(self.inputs.files) - _whole(self._root, self._placed, self.inputs.files)

    def write_own(self, missing):
        """Write those of the missing ones that the bundle does not have. Raises OSError."""
        for key in sorted(missing & self.own.keys()):
            self._root.write(f"{self._placed.private}/{FILES}/{key}", self.own[key], 0o600)

    def files(self, missing):
        """Return {key: (mode, None)} of those of the missing ones that the bundle has, as a Staging takes them.

        A key is a name below FILES as a one-tuple: a bundle may have a file of the same name.
        """
        return {(key,): (int(key.partition("-")[0], 8), None) for key in sorted(missing & self.members.keys())}

    def move(self, staged):
        """Give the files of a Staging that are on the disk their names. Raises OSError."""
        with self._root.directory(f"{self._placed.private}/{FILES}") as directory:
            for key in self.members:
                if (key,) in staged:
                    beneath.rename(staged.directory, staged.take((key,)), directory, key)

    def note(self, changed=True):
        """Write down what the version has, when all of it is there; ``changed`` says that some was written.

        What is noted already was on the disk then. Raises OSError.
        """
        noted = self.is_noted()
        if changed or not noted:
            self._root.sync(f"{self._placed.private}/{FILES}")
        if not noted:
            self._root.write(self._note, self._noted, 0o600)

    def is_noted(self):
        """Tell whether it is written down what the version has."""
        return _read(self._root, self._note) == self._noted

    @property
    def _note(self):
        return f"{self._placed.private}/{VERSIONS}/{self._app.ref.hex}.json"

    @property
    def _noted(self):
        return json.dumps(self.inputs._asdict()).encode() + b"\n"


def of(config, ref):
    """Return (Placed, Inputs) of a version, None as the latter when not all of it is there as the agent placed it."""
    placed = Placed(config.compose_root, ref.app_name)
    try:
        with beneath.opened(placed.root) as root:
            found = _noted(root, placed, ref)
            return placed, found if found and _whole(root, placed, found.files) == set(found.files) else None
    except OSError:
        return placed, None


def _noted(root, placed, ref):
    try:
        value = json.loads(_read(root, f"{placed.private}/{VERSIONS}/{ref.hex}.json") or b"")
        found = Inputs(**{key: tuple(entry) if isinstance(entry, list) else entry for key, entry in value.items()})
        return found._replace(links=tuple(map(tuple, found.links)))
    except (ValueError, TypeError, AttributeError):
        return None


def published_of(config, ref):
    """Return (digest of a version's compose file, the one (bytes) in the app's directory or None), unread by others.

    The digest is noted where only root can write. None for a version that this agent has not placed.
    """
    placed = Placed(config.compose_root, ref.app_name)
    try:
        with beneath.opened(placed.root) as root:
            found = _noted(root, placed, ref)
    except OSError:
        return None
    return (found.published, placed.compose_file()) if found and found.published else None


def environment_of(config, ref):
    """Return the variables that docker compose has for a version, as ``expected.environment`` does.

    For one that this agent has not placed yet they are those of the directory.
    """
    placed = Placed(config.compose_root, ref.app_name)
    try:
        with beneath.opened(placed.root) as root:
            found = _noted(root, placed, ref)
            if found is not None:
                text = root.read(f"{placed.private}/{FILES}/{found.environment}", expected.LARGEST)
                return expected.environment(text.decode(errors="replace"))
    except OSError:
        pass
    return expected.environment_in(placed.directory)


def owners_environment(config, ref):
    """Return the text of the ``.env`` that the device's owner put beside an app's compose file, "" for none.

    It counts for a version whose bundle has none. What the agent wrote there for another version, and what a
    container may write, is not the owner's.
    """
    placed = Placed(config.compose_root, ref.app_name)
    try:
        with beneath.opened(placed.root) as root:
            data = root.read(f"{placed.name}/{expected.ENVIRONMENT_FILE}", expected.LARGEST)
    except OSError:
        return ""
    record = placed.read()
    if record is not None and (expected.ENVIRONMENT_FILE in record.members
                               or mounts.within(expected.ENVIRONMENT_FILE, record.places)):
        return ""
    return data.decode(errors="replace")


def arguments(placed, inputs):
    """Return docker compose's arguments that name the files."""
    return ("--file", str(placed.path(f"{FILES}/{inputs.compose}")),
            "--env-file", str(placed.path(f"{FILES}/{inputs.environment}")))


def check_sources(placed, inputs):
    """Raise CorruptError when dockerd would follow a link that a container may have made, to mount what it leads to.

    Links of the bundle that are as they were are followed here as well.
    """
    with beneath.opened(placed.root) as root:
        waiting, seen = list(inputs.sources), set()
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            parts = place.split("/") if place != "." else []
            for count in range(1, len(parts) + 1):
                name, above = "/".join(parts[:count]), "/".join(parts[:count - 1]) or "."
                target = _link(root, f"{placed.name}/{name}")
                if target is None or not mounts.within(above, inputs.written):
                    continue
                if dict(inputs.links).get(name) != target or len(seen) > _MAX_LINKS:
                    raise CorruptError(f"app {placed.name}: {placed.directory / name} is a symbolic link that a "
                                       "container may have made, and dockerd would mount what it leads to: remove it")
                if not target.startswith("/"):
                    waiting.append(posixpath.normpath(posixpath.join(above, target, *parts[count:])))
                break


def _link(root, path):
    """Return the target of a symbolic link, None when there is none."""
    try:
        with root.parent(path) as (directory, name):
            return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def prune(placed, root, ref, inputs, engine):
    """Remove what no version but ``ref``, which has these Inputs, needs, and no container has mounted.

    Raises OSError, EngineError.
    """
    with root.directory(f"{placed.private}/{FILES}") as directory:
        spare, place = set(os.listdir(directory)) - set(inputs.files), str(placed.path(FILES))
        mounted = mounts.mounted_below(look.at(engine).mounts(), place) if spare else ()
        used = {path[len(place) + 1:] for path, _writes in mounted}
        for key in spare - used:
            os.unlink(key, dir_fd=directory)
    with root.directory(f"{placed.private}/{VERSIONS}") as directory:
        for name in os.listdir(directory):
            if name != f"{ref.hex}.json":
                os.unlink(name, dir_fd=directory)


def _read(root, path):
    try:
        return root.read(path, 16 * 1024 * 1024)
    except OSError:
        return None


def _whole(root, placed, keys):
    """Return those of some names below FILES, a set, that are there with the mode and content that they tell."""
    try:
        with root.directory(f"{placed.private}/{FILES}") as directory:
            return {key for key in keys if _is_whole(directory, str(key))}
    except OSError:
        return set()


def _is_whole(directory, key):
    mode, _, digest = key.partition("-")
    try:
        if "/" in key:
            raise ValueError(key)
        with open(beneath.open_file(directory, key), "rb") as stream:
            return os.fstat(stream.fileno()).st_mode & 0o7777 == int(mode, 8) \
                and stream_sha256(stream) == f"sha256:{digest}"
    except (OSError, ValueError):
        return False


def _followed(index, place):
    """Return the name of the bundle's file that a place is, links in the bundle followed; None when it is none."""
    for _ in range(40):
        parts = place.split("/")
        for count in range(1, len(parts) + 1):
            member = index.get("/".join(parts[:count]))
            if member is not None and member.kind == bundles.LINK:
                if member.target.startswith("/"):
                    return None
                above = posixpath.join(*parts[:count - 1]) if count > 1 else ""
                place = posixpath.normpath(posixpath.join(above, member.target, *parts[count:]))
                break
        else:
            member = index.get(place)
            return place if member is not None and member.kind == bundles.FILE else None
    return None
