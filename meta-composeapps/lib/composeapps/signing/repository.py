# SPDX-License-Identifier: MIT
"""A repository: a directory of static files, as a web server gives them and TUF 1.0 names them.

::

    N.root.json            every root, from 1 on
    N.targets.json         and N.NAME.json of each wave
    N.snapshot.json
    timestamp.json         the only file that is ever replaced: it says which of the others are in force

What is new gets names of its own, timestamp.json comes last. So a power cut leaves the old repository or the new
one, and who reads meanwhile gets one of them whole.
"""

import contextlib
import fcntl
import os
import re
from pathlib import Path

from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from composeapps import durable
from composeapps.errors import CorruptError, NotFoundError, UsageError
from composeapps.signing import documents as docs

_NAMES = re.compile(r"([1-9][0-9]{0,9})\.[a-z0-9-]+\.json")


class Repository:
    """The repository in a directory.

    Arguments:
        directory: where it is, or is to be.
    """

    def __init__(self, directory):
        self.directory = Path(directory)

    @contextlib.contextmanager
    def alone(self, notify=lambda text: None):
        """Keep others from changing it within the block; waits for one that does so now.

        Arguments:
            notify: called with a sentence before waiting.
        """
        with durable.storage_errors("taking the repository"):
            durable.make_directories(self.directory)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notify(f"waiting for another command that is at work on {self.directory}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def is_there(self):
        """Tell whether anything was ever published in it."""
        return any(name == "timestamp.json" or (found := _NAMES.fullmatch(name)) and int(found[1]) > 1
                   for name in self._names())

    def _names(self):
        try:
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as err:
            raise UsageError(f"{self.directory} cannot be read: {err.strerror}") from None

    def read(self):
        """Return the State, each part of which is signed as the root says. Whether it is expired is not looked at.

        Raises NotFoundError, CorruptError.
        """
        roots = self.roots()
        if not roots or "timestamp.json" not in self._names():
            raise NotFoundError(f"{self.directory} has no repository: 'composeapps target init {self.directory}' makes "
                                "one")
        timestamp = docs.parse(self._file("timestamp.json"), "timestamp", self._what("timestamp.json"))
        self._signed(timestamp, "timestamp", *roots[-2:])
        snapshot = self._given("snapshot", timestamp.signed.snapshot_meta, "snapshot")
        self._signed(snapshot, "snapshot", *roots[-2:])
        metas = snapshot.signed.meta
        targets = self._given("targets", metas.get("targets.json"), "targets")
        self._signed(targets, "targets", *roots[-2:])
        waves = {}
        for name in docs.waves_of(targets.signed):
            waves[name] = self._given(name, metas.get(f"{name}.json"), "targets")
            self._signed(waves[name], name, targets)
        return docs.State(tuple(roots), timestamp, snapshot, targets, waves)

    def roots(self):
        """Return all roots, each signed by the one before. Raises CorruptError."""
        roots, names = [], set(self._names())
        while f"{len(roots) + 1}.root.json" in names:
            name = f"{len(roots) + 1}.root.json"
            found = docs.parse(self._file(name), "root", self._what(name))
            if found.signed.version != len(roots) + 1:
                raise CorruptError(f"{self._what(name)} says that it is version {found.signed.version}")
            for by in [found, *roots[-1:]]:
                self._signed(found, "root", by)
            roots.append(found)
        return roots

    def _what(self, name):
        return f"{self.directory / name}"

    def _file(self, name):
        try:
            with open(self.directory / name, "rb") as stream:
                return stream.read(docs.LIMIT + 1)
        except FileNotFoundError:
            raise CorruptError(f"{self._what(name)} is missing, which timestamp.json leads to: put it back from a copy"
                               ) from None
        except OSError as err:
            raise UsageError(f"{self._what(name)} cannot be read: {err.strerror}") from None

    def _given(self, role, meta, kind):
        if meta is None:
            raise CorruptError(f"{self.directory}: the snapshot does not name {role}.json")
        name = f"{meta.version}.{role}.json"
        data = self._file(name)
        try:
            meta.verify_length_and_hashes(data)
        except Exception as err:
            raise CorruptError(f"{self._what(name)} is not the file that was published: {err}") from None
        found = docs.parse(data, kind, self._what(name))
        if found.signed.version != meta.version:
            raise CorruptError(f"{self._what(name)} says that it is version {found.signed.version}")
        return found

    def _signed(self, document, role, *by):
        # A cut between a new root and what its keys sign leaves that to the keys of the root before.
        if not any(docs.is_signed(document, role, each.signed) for each in by):
            raise CorruptError(f"{self.directory}: {role}, version {document.signed.version}, is not signed by the "
                               "keys that may sign it: put it back from a copy")

    def publish(self, state, documents, keys, now, fresh=False):
        """Publish documents, with a snapshot and a timestamp that go with them.

        Arguments:
            state: the State that they were made from, read under ``alone``.
            documents: {role: Metadata}, signed.
            keys: Keys, among them those of snapshot and timestamp.
            now: the time.
            fresh: renew the snapshot even if nothing asks for it; else it is renewed in the second half of its life.

        Raises UsageError when a signature is missing, StorageError.
        """
        lacking = docs.missing(state, documents)
        if lacking:
            raise UsageError(told_missing(lacking))
        root = (documents.get("root") or state.document("root")).signed
        targets = documents.get("targets") or state.targets
        if not docs.is_signed(targets, "targets", root):
            raise UsageError("the targets are not signed by the keys that the new root names: nothing was published")
        online = self._online(state, documents, root, keys, now, fresh)
        files = {f"{document.signed.version}.{role}.json": docs.dump(document, role)
                 for role, document in {**documents, **online}.items() if role not in ("root", "timestamp")}
        last = {}
        if "timestamp" in online:
            last["timestamp.json"] = docs.dump(online["timestamp"], "timestamp")
        if "root" in documents:
            last[f"{root.version}.root.json"] = docs.dump(documents["root"], "root")
            # Devices that have the old root go on with what its keys have signed, too, until the new one is there.
            if not state.roots or not all(docs.is_signed(each, role, state.root)
                                          for role, each in self._all(state, documents, online).items()):
                last = dict(reversed(last.items()))
        with durable.storage_errors(f"publishing in {self.directory}"):
            for left in self.directory.glob(".tmp-*"):
                left.unlink(missing_ok=True)
            for name, data in {**files, **last}.items():
                durable.write_file(self.directory / name, data)

    @staticmethod
    def _all(state, documents, online):
        return {role: documents.get(role) or online.get(role) or state.document(role) for role in docs.TOP[1:]}

    def _online(self, state, documents, root, keys, now, fresh):
        """Return {role: Metadata} of the snapshot and the timestamp that have to be new, signed."""
        changed = {role: each for role, each in documents.items() if role != "root"}
        after = {"root": documents["root"]} if "root" in documents else {}
        stale = {role: state.document(role) is None or not docs.is_signed(state.document(role), role, root)
                 for role in docs.ONLINE}
        half = None
        if state.snapshot:
            half = (state.snapshot.signed.expires - now).total_seconds() < docs.days_of(root, "snapshot") * 43_200
        made = {}
        if changed or stale["snapshot"] or fresh or half:
            snapshot = docs.next_of(state.snapshot, docs.days_of(root, "snapshot"), now) if state.snapshot else \
                Metadata(Snapshot(expires=now))
            made["snapshot"] = _dated(snapshot, root, "snapshot", now)
            # A wave that is gone stays named: who has seen it refuses a snapshot without it.
            snapshot.signed.meta |= {f"{role}.json": _meta(docs.dump(each, role), each.signed.version)
                                     for role, each in changed.items()}
            self._sign(state, after, made, "snapshot", keys)
        elif "root" in documents and not stale["timestamp"]:
            return {}
        timestamp = docs.next_of(state.timestamp, docs.days_of(root, "timestamp"), now) if state.timestamp else \
            Metadata(Timestamp(expires=now))
        made["timestamp"] = _dated(timestamp, root, "timestamp", now)
        if "snapshot" in made:
            data = docs.dump(made["snapshot"], "snapshot")
            timestamp.signed.snapshot_meta = _meta(data, made["snapshot"].signed.version)
        self._sign(state, after, made, "timestamp", keys)
        return made

    @staticmethod
    def _sign(state, after, made, role, keys):
        documents = {**after, role: made[role]}
        docs.sign(state, documents, [key for key in keys if key.can_sign])
        lacking = docs.missing(state, documents)
        if role in lacking:
            raise UsageError(told_missing({role: lacking[role]}))


def _dated(document, root, role, now):
    from datetime import timedelta

    document.signed.expires = now + timedelta(days=docs.days_of(root, role))
    return document


def _meta(data, version):
    return MetaFile.from_data(version, data, ["sha256"])


def lacks(lacking):
    """Return in words which signatures are missing, as docs.missing returns them."""
    words = [f"{role} lacks {count} signature{'s' if count > 1 else ''} of the keys "
             f"{', '.join(sorted(key[:12] for key in keys))}" for role, (count, keys) in sorted(lacking.items())]
    return "; ".join(words)


def told_missing(lacking):
    """Return what ``lacks`` does as the sentence of an error."""
    return f"{lacks(lacking)}: name them with --key or --keys, nothing was published"


