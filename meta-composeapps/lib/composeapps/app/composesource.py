# SPDX-License-Identifier: MIT
"""The compose file of an app's directory, made of all files that docker compose makes it of.

Those are docker compose's own choice of names with the file that overrides them, or the files that are
named; what they include; and what their services extend. Variables stay variables.
"""

import os
import posixpath
import re
import stat
from pathlib import Path
from typing import NamedTuple

from composeapps import COMPOSE_FILE
from composeapps.app import compose, filerefs, merging, yamltext
from composeapps.app.bundle import BASE_NAMES, OVERRIDE_NAMES
from composeapps.errors import NotFoundError, UsageError

# More files than any app has of them.
_MAX_FILES = 200
_MAX_EXTENDED = 50
_RESOURCES = ("services", "networks", "volumes", "configs", "secrets")


class ComposeSource(NamedTuple):
    """An app's compose file, ``value``, and the ``files`` (Paths) that stand for it; the first gives the name.

    ``merged`` tells whether others had a part in it: overrides, included and extended ones.
    """

    value: dict
    files: list
    merged: bool


def read(app_dir, files=()):
    """Return the ComposeSource of an app's directory.

    Arguments:
        app_dir: the directory (Path), to which all paths in the files are relative.
        files: the compose files, later ones go before earlier ones; docker compose's choice by default.

    Raises NotFoundError for a file that is not there, UsageError naming what cannot be made into one file.
    """
    if not app_dir.is_dir():
        raise UsageError(f"{app_dir} is not a directory")
    files = [Path(file) for file in files] or _choose(app_dir)
    reader = _Reader(app_dir)
    value = merging.settle(reader.load(files, ()))
    return ComposeSource(compose.check(value, str(files[0])), files, reader.count > 1)


def check_environment(listing):
    """Refuse a bundle whose .env tells docker compose to take other compose files than the pinned one.

    Arguments:
        listing: {name: path} of the bundle's entries.
    """
    path = listing.get(".env")
    if path is None or not path.is_file():
        return
    for line in path.read_bytes().decode(errors="replace").splitlines():
        if re.match(r"\s*(?:export\s+)?COMPOSE_FILE\s*[=:]", line):
            raise UsageError(f"{path} sets COMPOSE_FILE, for which docker compose would leave the pinned file alone: "
                             "take that line out, and name the files with --file")


def _choose(app_dir):
    """Return the files that docker compose takes when it is told nothing."""
    found = {}
    for name in BASE_NAMES:
        if (app_dir / name).exists():
            found.setdefault((app_dir / name).resolve(), app_dir / name)
    bases = list(found.values())
    if not bases:
        raise NotFoundError(f"{app_dir} has no {COMPOSE_FILE}: name another file with --file")
    if len(bases) > 1:
        raise UsageError(f"{app_dir} has {' and '.join(path.name for path in bases)}: name one with --file")
    overrides = [app_dir / name for name in OVERRIDE_NAMES if (app_dir / name).exists()]
    if len(overrides) > 1:
        raise UsageError(f"{app_dir} has {' and '.join(path.name for path in overrides)}: name one with --file, "
                         f"after {bases[0].name}")
    return [*bases, *overrides]


class _Reader:
    """Reads compose files; all paths in what it returns are relative to the app's directory."""

    def __init__(self, app_dir):
        self._app_dir = app_dir
        self._kept, self._left = {}, yamltext.MAX_VALUES
        self.count = 0

    def load(self, files, within, base="."):
        """Return the mapping that some files make together, with what they include and extend.

        Arguments:
            files: Paths.
            within: the files that include these.
            base: the directory that paths in them are relative to, relative to the app's.
        """
        value = None
        for path in files:
            for document in self._documents(path):
                self._extend_all(document, path, base)
                value = document if value is None else merging.merge(value, document, str(path))
        value = value if value is not None else {}
        what = str(files[0])
        included = merging.settle(value.pop("include", None))
        if within:
            # What is included takes no part in overriding what includes it.
            value = merging.settle(value)
        _move(value, base, what)
        if included is not None:
            self._include(value, included, what, (*within, *map(str, files)), base)
        return value

    def _documents(self, path):
        """Return the documents of a compose file, which the caller may change."""
        self.count += 1
        if self.count > _MAX_FILES:
            raise UsageError(f"{path}: the app is made of more than {_MAX_FILES} compose files")
        found = yamltext.read(_bytes(path), str(path), source=True)
        for value in found:
            if not isinstance(value, dict):
                raise UsageError(f"{path} is not a compose file: it has no services")
            for kind in _RESOURCES:
                if value.get(kind) is None:
                    value.pop(kind, None)
                elif not isinstance(value[kind], dict):
                    raise UsageError(f"{path} is not a compose file: its {kind} are no mapping")
            for name, service in value.get("services", {}).items():
                if service is not None and not isinstance(service, (dict, yamltext.Tagged)):
                    raise UsageError(f"{path}: service '{name}' is not a mapping")
                if isinstance(service, dict):
                    # A device builds nothing.
                    service.pop("build", None)
        self._spend(found)
        return found or [{}]

    def _extended_documents(self, path):
        """Return the documents of a compose file that services extend those of, read once, and not to be changed."""
        if str(path) not in self._kept:
            self._kept[str(path)] = self._documents(path)
        return self._kept[str(path)]

    def _spend(self, value):
        """Count what is read and copied: files that extend one another multiply."""
        waiting = [value]
        while waiting:
            each = waiting.pop()
            each = each.value if isinstance(each, yamltext.Tagged) else each
            self._left -= 1
            if isinstance(each, (dict, list)):
                waiting += each.values() if isinstance(each, dict) else each
        if self._left < 0:
            raise UsageError(f"{self._app_dir}: its compose files have more than {yamltext.MAX_VALUES} values, with "
                             "what services take over from others")

    def _copy(self, value):
        self._spend(value)
        return yamltext.copied(value)

    def _include(self, value, included, what, within, base):
        entries = included if isinstance(included, list) else None
        if entries is None:
            raise UsageError(f"{what}: include is not a list")
        for entry in entries:
            entry = {"path": entry} if isinstance(entry, str) else entry
            if not isinstance(entry, dict) or set(entry) - {"path", "project_directory", "env_file"}:
                raise UsageError(f"{what}: an entry of include is neither a path nor a mapping with one")
            paths = entry.get("path")
            paths = [paths] if isinstance(paths, str) else paths
            if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
                raise UsageError(f"{what}: an entry of include has no path")
            places = [self._place(path, base, f"{what} includes") for path in paths]
            for place in places:
                if str(self._app_dir / place) in within:
                    raise UsageError(f"{what} includes {place}, which includes it")
            directory = entry.get("project_directory")
            directory = posixpath.dirname(places[0]) or "." if directory is None else self._place(
                directory, base, f"{what} includes with the project directory", folder=True)
            other = self.load([self._app_dir / place for place in places], within, directory)
            self._check_variables(other, entry, directory, places[0], what)
            for kind in _RESOURCES:
                for key, definition in (other.get(kind) or {}).items():
                    mine = value.setdefault(kind, {})
                    if key in mine and mine[key] != definition:
                        raise UsageError(f"{what}: '{key}' of {kind} is in {places[0]}, which it includes, as well: "
                                         "give one of them another name")
                    mine[key] = definition

    def _check_variables(self, value, entry, directory, place, what):
        """Refuse to include what takes its variables from another .env than the app has."""
        own = entry.get("env_file") is not None or (
            directory != "." and (self._app_dir / directory / ".env").exists())
        if own and _has_variables(value):
            raise UsageError(f"{what} includes {place}, which takes its variables from an environment file of its own: "
                             "fill them in, or move them to the app's .env")

    def _place(self, path, base, what, folder=False):
        """Return the place of a file that another names, relative to the app's directory."""
        if "$" in path:
            raise UsageError(f"{what} '{path}', which holds a variable: name the file itself")
        place = posixpath.normpath(posixpath.join(base, path))
        if path.startswith(("/", "~")) or filerefs.leads_out(place):
            raise UsageError(f"{what} '{path}', outside the app's directory: move it into the directory")
        if "://" in path or path.startswith("oci:"):
            raise UsageError(f"{what} '{path}', which is elsewhere: take a copy into the app's directory")
        # A name may be too long for the file system, or none at all.
        if not os.path.exists(self._app_dir / place):
            raise UsageError(f"{what} '{path}', which does not exist")
        if not folder and not (self._app_dir / place).resolve().is_relative_to(self._app_dir.resolve()):
            raise UsageError(f"{what} '{path}', a link to outside the app's directory: move the file into it")
        return place

    def _extend_all(self, document, path, base):
        services = document.get("services") or {}
        for name in list(services):
            services[name] = self._extended(name, services, path, base, ())

    def _extended(self, name, services, path, base, within):
        """Return a service with what it takes over from those that it extends."""
        service = services[name]
        if not isinstance(service, dict) or "extends" not in service:
            return service
        what = f"{path}: service '{name}' extends"
        if (str(path), name) in within:
            raise UsageError(f"{what} a service that extends it")
        within = (*within, (str(path), name))
        if len(within) > _MAX_EXTENDED:
            raise UsageError(f"{what} one that extends one, and so on, more than {_MAX_EXTENDED} times")
        service = dict(service)
        extends = service.pop("extends")
        if isinstance(extends, yamltext.Tagged):
            if extends.tag == yamltext.RESET:
                return service
            extends = extends.value
        extends = {"service": extends} if isinstance(extends, str) else extends
        if not isinstance(extends, dict) or not isinstance(extends.get("service"), str):
            raise UsageError(f"{what} something that is not a service")
        other = extends["service"]
        if extends.get("file") is None:
            if other not in services:
                raise UsageError(f"{what} '{other}', which it does not have")
            original = self._copy(self._extended(other, services, path, base, within))
        else:
            file = extends["file"]
            if not isinstance(file, str):
                raise UsageError(f"{what} '{other}' of a file that has no name")
            place = self._place(file, base, what)
            file = self._app_dir / place
            documents = self._extended_documents(file)
            if len(documents) > 1:
                raise UsageError(f"{what} '{other}' of {file}, which has {len(documents)} YAML documents: make it one")
            theirs = documents[0].get("services") or {}
            if other not in theirs:
                raise UsageError(f"{what} '{other}', which {file} does not have")
            directory = posixpath.dirname(place) or "."
            original = merging.settle(self._copy(self._extended(other, theirs, file, directory, within)))
            # Back to where this file's own paths begin.
            _move({"services": {other: original}}, posixpath.relpath(directory, base), str(file))
        if not isinstance(original, dict):
            raise UsageError(f"{what} '{other}', which is not a mapping")
        return merging.merge_service(original, service, name, str(path))


def _move(value, base, what):
    """Write the relative paths of a compose file as they are seen from another directory, in place."""
    if base == ".":
        return
    for each in filerefs.references(value):
        if each.path.startswith("$"):
            raise UsageError(f"{what}: {each}, of which nobody knows whether it begins in that file's directory: "
                             "begin it with ./")
        if each.path[:1] in ("/", "~") or each.kind in (filerefs.EXTENDS, filerefs.INCLUDE):
            continue
        path = posixpath.join(base, each.path)
        # What is known of it: up to the directory before a variable.
        known = path if "$" not in path else path[:path.index("$")].rpartition("/")[0]
        path = posixpath.normpath(known) + path[len(known):]
        each.replace(path if path.startswith("../") else f"./{path}")


def _has_variables(value):
    if isinstance(value, (dict, list)):
        return any(map(_has_variables, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and "$" in value.replace("$$", "")


def _bytes(path):
    """Return the content of a compose file, of which no more is read than one may have."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise UsageError(f"{path} is not a file")
            return stream.read(yamltext.MAX_TEXT + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None
