# SPDX-License-Identifier: MIT
"""Believed metadata on the device, ``<state_dir>/delivery``, so that a power cut at any write loses no protection.

``root.json`` is the last root that was believed, with a copy (composeapps.records.sealed); of the roots that come with
the image the newest counts where that is newer. There is one chain of roots; the rest is kept for each tag, since
servers count versions by tags: ``tags/<quoted tag>/`` has a record of what was believed last of each role,
``seen.json`` with a copy, and the documents themselves.

The record decides: a document that is not the one in the record is fetched again, and what the record says may not be
undercut, whether its document is still there or not. When both copies of it are lost it is made from the documents;
were they lost too, versions begin anew, which is told.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

from composeapps import beneath, durable
from composeapps.delivery.trust import SNAPSHOT, TIMESTAMP, Seen, from_text, to_text
from composeapps.errors import NotFoundError
from composeapps.records import sealed

ROOT_FILE, SEEN_FILE = "root.json", "seen.json"
_SEED = re.compile(r"[1-9][0-9]{0,8}\.root\.json")
_LARGEST = 4_000_000
_FILE = ".role.json"


class Stored:
    """The metadata of one tag.

    Arguments:
        directory: the agent's directory for it, a Path.
        seeds: the directory (a Path) with the roots that come with the image, N.root.json; it need not be there.
        tag: the tag, "" for a repository that counts its versions without.
        notify: called with a sentence about what was lost.
    """

    def __init__(self, directory, seeds, tag="", notify=lambda text: None):
        self._directory, self._seeds = Path(directory), Path(seeds)
        # A tag is from outside: never a path, and never too long for one.
        stem = quote(tag, safe="").replace(".", "%2E") or "_"
        self._place = f"tags/{stem if len(stem) < 100 else hashlib.sha256(tag.encode()).hexdigest()}"
        self._notify, self._record, self._roots = notify, None, {}

    def root(self):
        """Return the bytes of the root that is trusted. Raises NotFoundError when there is none."""
        best, newest = None, 0
        found = sealed.read(self._directory, ROOT_FILE, _with_version)
        if found.problem:
            self._notify(f"the root of signed delivery: {found.problem}")
        if found.value:
            newest, best = found.value
        for path in self._seeded():
            try:
                version, data = _with_version(beneath.read_regular(path))
            except (OSError, ValueError, KeyError, TypeError) as err:
                self._notify(f"{path} cannot be used as a root: {err}")
                continue
            if version > newest:
                newest, best = version, data
        if best is None:
            raise NotFoundError(f"there is no root to trust in {self._seeds}: an image that takes signed delivery "
                                "brings its factory's root, 1.root.json, there")
        return best

    def _seeded(self):
        try:
            names = [entry.name for entry in os.scandir(self._seeds) if _SEED.fullmatch(entry.name)]
        except OSError:
            return []
        # The newest is enough; one before it is looked at when that cannot be read.
        return [self._seeds / name for name in sorted(names, key=lambda name: int(name.split(".")[0]))[-2:]]

    def put_root(self, data):
        """Make a root that was believed durable. Raises StorageError."""
        with durable.storage_errors("keeping the factory's root"):
            durable.make_directories(self._directory)
            sealed.write(self._directory, ROOT_FILE, data)

    def lost(self):
        """Tell whether both copies of the record are lost, so that it is to be made from the documents."""
        return self._read() is None

    def begin_anew(self):
        """Begin with no record. Nothing is written before something is believed."""
        self._record = {"roles": {}, "complete": None, "signed": ""}

    def seen(self, role):
        """Return the Seen of a role, None for none."""
        entry = (self._read() or {"roles": {}})["roles"].get(role)
        if entry is None:
            return None
        return Seen(entry["version"], entry["digest"], from_text(entry["expires"]),
                    {name: tuple(pair) for name, pair in entry["meta"].items()}, tuple(entry["signers"]))

    def roles(self):
        """Return the names of all roles of which something was believed."""
        return sorted((self._read() or {"roles": {}})["roles"])

    def document(self, role):
        """Return the bytes that were kept of a role, None when they are not those that the record is about."""
        entry = (self._read() or {"roles": {}})["roles"].get(role)
        data = self.kept(role)
        if data is None or entry is None or hashlib.sha256(data).hexdigest() != entry["digest"]:
            return None
        return data

    def kept(self, role):
        """Return the bytes of a role's file, whatever the record says; None for none."""
        try:
            path = self._directory / self._place / _file_of(role)
            return beneath.read_regular(path) if path.stat().st_size <= _LARGEST else None
        except OSError:
            return None

    def put(self, role, data, seen):
        """Make a document that was believed durable, and the record of it. Raises StorageError."""
        record = self._read() or {"roles": {}, "complete": None, "signed": ""}
        entry = {"version": seen.version, "digest": seen.digest, "expires": to_text(seen.expires), "meta": seen.meta,
                 "signers": seen.signers}
        roles = {**record["roles"], role: json.loads(json.dumps(entry))}
        with durable.storage_errors("keeping the factory's metadata"):
            directory = self._directory / self._place
            durable.make_directories(directory)
            # The record may be the newer of the two, never the document: that would be one that nobody remembers.
            self._write({**record, "roles": roles})
            durable.make_way(directory / _file_of(role), self._directory)
            durable.write_file(directory / _file_of(role), data)

    def complete(self):
        """Return what ``put_complete`` was given last, None when its documents are not in place any more.

        Of the timestamp and the snapshot something newer may have been believed since.
        """
        record = self._read()
        done = record and record["complete"]
        if not done or any(hashlib.sha256(self.kept(role) or b"").hexdigest() != digest
                           for role, digest in done["digests"].items()):
            return None
        return done

    def put_complete(self, done, signed):
        """Write down that all roles are in place; what is kept of others, waves that are gone, goes.

        Arguments:
            done: {"root": digest, "timestamp": digest, "until": text, "roles": {role of targets: [names of those that
                count] or None for all}, "digests": {role: digest}}.
            signed: the latest time that signed metadata tells of, as a text.
        """
        record = self._read()
        if record["complete"] == done and record["signed"] >= signed:
            return
        roles = {role: entry for role, entry in record["roles"].items()
                 if role in (TIMESTAMP, SNAPSHOT, *done["roles"])}
        with durable.storage_errors("keeping the factory's metadata"):
            self._write({**record, "roles": roles, "complete": done, "signed": max(signed, record["signed"])})
            names = {_file_of(role) for role in roles}
            for entry in list(os.scandir(self._directory / self._place)):
                if entry.name.endswith(_FILE) and entry.name not in names:
                    durable.remove_file(Path(entry))

    def signed(self):
        """Return the latest time (UTC) that believed metadata tells of, None for none: the clock is not behind it."""
        record = self._read()
        try:
            return from_text(record["signed"]) if record else None
        except ValueError:
            return None

    def _read(self):
        """Return the record; None when it is lost."""
        if self._record is None:
            found = sealed.read(self._directory, f"{self._place}/{SEEN_FILE}", _parse)
            if found.problem:
                self._notify(f"what is known of the factory's metadata: {found.problem}")
            if found.lost:
                return None
            self._record = found.value or {"roles": {}, "complete": None, "signed": ""}
            # An older record without its documents is as good as any; documents without a record are not.
            if found.value is None and self.kept("timestamp") is not None:
                self._record = None
        return self._record

    def _write(self, record):
        sealed.write(self._directory, f"{self._place}/{SEEN_FILE}", sealed.dump(record))
        self._record = record


def of_device(config, states, notify=lambda text: None):
    """Return the Stored of a device's metadata, for the tag that it goes by: the first one of its configuration."""
    return Stored(states.root / "delivery", config.root_dir, config.tags[0] if config.tags else "", notify)


def _file_of(role):
    stem = quote(role, safe="")
    return f"{stem if len(stem) < 100 else hashlib.sha256(role.encode()).hexdigest()}{_FILE}"


def version_of(data):
    """Return the version of a root's bytes; raises ValueError, KeyError, TypeError."""
    return _with_version(data)[0]


def _with_version(data):
    if len(data) > _LARGEST:
        raise ValueError("it is too long")
    try:
        version = json.loads(data)["signed"]["version"]
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if type(version) is not int or version < 1:
        raise ValueError("it has no version")
    return version, data


def _parse(data):
    record = sealed.parse(data)
    for entry in record["roles"].values():
        from_text(entry["expires"])
        if type(entry["version"]) is not int or not isinstance(entry["digest"], str):
            raise ValueError("no record of metadata")
        {name: (version, digest) for name, (version, digest) in entry["meta"].items()}
        tuple(entry["signers"])
    if not isinstance(record["signed"], str) or not isinstance(record["complete"], dict | None):
        raise ValueError("no record of metadata")
    return record
