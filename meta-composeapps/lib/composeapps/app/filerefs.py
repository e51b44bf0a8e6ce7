# SPDX-License-Identifier: MIT
"""The files that a compose file names: which they are, where they lie, and whether a bundle has them."""

import os
import posixpath
import re
from typing import NamedTuple

from composeapps import COMPOSE_FILE
from composeapps.errors import UsageError

ENV_FILE, LABEL_FILE, SECCOMP = "env_file", "label_file", "seccomp profile"
EXTENDS, INCLUDE = "file that it extends", "include"
BIND, VOLUME, CONFIG, SECRET = "bind mount", "volume", "config", "secret"
_KINDS = {"configs": CONFIG, "secrets": SECRET}


class FileReference(NamedTuple):
    """A place in a compose file that names a file or a directory.

    ``owner`` is the service, or the key at the top, that does; ``path`` is as written, with variables;
    ``needed`` tells whether docker compose fails when it is missing, ``made`` whether it makes a directory
    then. ``replace`` is called with another path to write there.
    """

    kind: str
    owner: str
    path: str
    needed: bool
    made: bool
    replace: object

    def place(self):
        """Return where the path leads, relative to the project's directory; "" when a variable has a say in it.

        None when it does not lie beside the compose file: an absolute path, or one of the user's home.
        """
        path = self.path.replace("$$", "")
        if "$" in path:
            # Whatever comes behind it, that much is known.
            begin = posixpath.normpath(path.partition("$")[0] + "x")
            return begin if begin.startswith("../") else None if path[0] in "/~" else ""
        path = self.path.replace("$$", "$")
        return None if path[:1] in ("/", "~") else posixpath.normpath(path)

    def outside(self):
        """Tell whether the path leads out of the project's directory."""
        return leads_out(self.place())

    def __str__(self):
        if self.kind == INCLUDE:
            return f"it includes '{self.path}'"
        word = "has" if self.kind in (CONFIG, SECRET, VOLUME) else "uses"
        owner = f"{self.kind} '{self.owner}'" if word == "has" else f"service '{self.owner}'"
        what = "" if word == "has" else f"the {self.kind} "
        return f"{owner} {word} {what}'{self.path}'"


def leads_out(place):
    """Tell whether a normalized place is outside the directory that it is relative to."""
    return place == ".." or bool(place) and place.startswith("../")


def references(value):
    """Yield the FileReferences of a parsed compose file: of its services, then of what is at its top."""
    for name, service in _items(value.get("services")):
        if isinstance(service, dict):
            yield from of_service(name, service)
    yield from of_resources(value)
    entries = value.get("include")
    for entry in entries if isinstance(entries, list) else ():
        holder = entry if isinstance(entry, dict) else {"path": entry}
        for key in ("path", "env_file", "project_directory"):
            yield from _listed(INCLUDE, "", holder, key)


def used_references(value):
    """Yield the ``references`` but for those of configs and secrets that no service has: nobody reads their files."""
    used = {(_KINDS[key], _text(entry.get("source") if isinstance(entry, dict) else entry))
            for _, service in _items(value.get("services")) if isinstance(service, dict)
            for key in _KINDS for _, _, entry in _entries(service, key)}
    for each in references(value):
        if each.kind not in _KINDS.values() or (each.kind, each.owner) in used:
            yield each


def of_service(name, service):
    """Yield the FileReferences of one service."""
    yield from _listed(ENV_FILE, name, service, "env_file")
    yield from _listed(LABEL_FILE, name, service, "label_file")
    for entries, index, entry in _entries(service, "security_opt"):
        option, sign, path = _text(entry).partition("seccomp")
        if not option and path[:1] in ("=", ":") and path[1:] != "unconfined":
            yield FileReference(SECCOMP, name, path[1:], True, False,
                                _writer(entries, index, prefix=f"{sign}{path[0]}"))
    extends = service.get("extends")
    if isinstance(extends, dict) and extends.get("file"):
        yield FileReference(EXTENDS, name, _text(extends["file"]), True, False, _writer(extends, "file"))
    for entries, index, entry in _entries(service, "volumes"):
        if isinstance(entry, dict):
            if entry.get("type") == "bind" and entry.get("source"):
                bind = entry.get("bind")
                made = isinstance(bind, dict) and bind.get("create_host_path") is True
                yield FileReference(BIND, name, _text(entry["source"]), not made, made, _writer(entry, "source"))
        elif source := bind_source(_text(entry)):
            yield FileReference(BIND, name, source, False, True,
                                _writer(entries, index, suffix=_text(entry)[len(source):]))


def of_resources(value, kinds=("configs", "secrets", "volumes")):
    """Yield the FileReferences of configs, secrets and volumes at the top of a compose file."""
    for kind in kinds:
        for key, entry in _items(value.get(kind)):
            if not isinstance(entry, dict):
                continue
            options = entry.get("driver_opts")
            if kind != "volumes":
                if entry.get("file"):
                    yield FileReference(_KINDS[kind], key, _text(entry["file"]), True, False, _writer(entry, "file"))
            elif (isinstance(options, dict) and entry.get("driver", "local") == "local" and options.get("device")
                  and "bind" in _text(options.get("o")).split(",")):
                yield FileReference(VOLUME, key, _text(options["device"]), True, False, _writer(options, "device"))


def environment_files(service):
    """Return the env_file entries of one service, as places in the bundle."""
    named = [each for each in of_service("", service) if each.kind == ENV_FILE]
    return [place for each in named if (place := each.place()) and not each.outside()]


def bind_source(volume):
    """Return the host's path of a volume in short form, "" when it is a named or nameless one.

    One that begins with a variable is taken for a path: nobody knows here.
    """
    source = re.match(r"(?:\$\{(?:[^{}]|\{[^{}]*\})*\}|[^:$]|\$(?!\{))*", volume)[0]
    if len(source) == len(volume) or source[:1] not in (".", "/", "~", "$") or source.startswith("$$"):
        return ""
    return source


def check_confined(value, what):
    """Refuse what lies outside the app's directory, by name.

    Raises UsageError.
    """
    for each in used_references(value):
        if each.outside():
            raise UsageError(f"{what}: {each}, outside the app's directory: an app takes along only what is in it; "
                             "move it into the directory, or name an absolute path")


def check_bundled(value, listing, what):
    """Check that a bundle has what its compose file names; return sentences about what docker compose will make.

    Arguments:
        value: the parsed compose file.
        listing: {name: path} of the bundle's entries.
        what: how errors name the compose file.

    Raises UsageError for what lies outside, is missing or is left out.
    """
    check_confined(value, what)
    said, folders = [], {path for name in listing for path in _parents(name)}
    for each in used_references(value):
        place = each.place()
        # What is extended or included is taken in when the app is published, and need not be in the bundle.
        if not place or place == "." or each.kind in (EXTENDS, INCLUDE):
            continue
        found = follow(place, listing, folders)
        if found is not None:
            if each.kind in (ENV_FILE, LABEL_FILE, SECCOMP) and (
                    found not in listing or listing[found].is_dir()):
                raise UsageError(f"{what}: {each}, which is a directory")
            continue
        if each.needed:
            raise UsageError(f"{what}: {each}, which is not in the bundle: it does not exist, or an ignore file leaves "
                             "it out")
        if each.made:
            said.append(f"{what}: {each}, which is not in the bundle: docker compose will make a directory there")
    return said


def follow(place, listing, folders):
    """Return the name that a place leads to through a bundle's links, None when none does.

    Arguments:
        place: relative to the project's directory.
        listing: {name: path} of the bundle's entries.
        folders: the directories that entries lie in; one may be there for what is in it alone.
    """
    for _ in range(40):
        parts = place.split("/")
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            path = listing.get(name)
            if path is not None and name != COMPOSE_FILE and path.is_symlink():
                place = posixpath.normpath(posixpath.join(*parts[:count - 1], os.readlink(path), *parts[count:]))
                break
        else:
            return place if place in listing or place in folders else None
        if place == "." or leads_out(place):
            return None
    return None


def _parents(name):
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _items(value):
    return list(value.items()) if isinstance(value, dict) else []


def _entries(service, key):
    entries = service.get(key)
    return [(entries, index, entry) for index, entry in enumerate(entries)] if isinstance(entries, list) else []


def _listed(kind, name, service, key):
    """Yield the references of a key that takes a path, or a list of paths and of mappings with a path."""
    if isinstance(service.get(key), (str, dict)):
        holder, places = service, [(key, service[key])]
    else:
        holder = service.get(key)
        places = [(index, entry) for _, index, entry in _entries(service, key)]
    for at, entry in places:
        if isinstance(entry, dict):
            if entry.get("path"):
                yield FileReference(kind, name, _text(entry["path"]), entry.get("required") is not False, False,
                                    _writer(entry, "path"))
        elif entry:
            yield FileReference(kind, name, _text(entry), True, False, _writer(holder, at))


def _writer(holder, key, prefix="", suffix=""):
    def write(path):
        holder[key] = f"{prefix}{path}{suffix}"

    return write


def _text(value):
    return value if isinstance(value, str) else "" if value is None else str(value)
