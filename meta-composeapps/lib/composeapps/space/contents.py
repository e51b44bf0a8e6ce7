# SPDX-License-Identifier: MIT
"""What the versions in a store name, looked at once for all that a command removes."""

import contextlib
import os
import shutil
import stat
from collections import Counter
from typing import NamedTuple

from composeapps import durable
from composeapps.oci.reference import parse_pinned
from composeapps.space import others
from composeapps.store import held, inventory
from composeapps.store.store import Store


class Version(NamedTuple):
    """A version of an app: its ``directory`` (a Path), None where the store has but blobs of it; its pinned reference
    as text, None where nothing tells it; a Reference that has its name and digest; and ``found``, its Inventory.
    """

    directory: object
    uri: str | None
    ref: object
    found: inventory.Inventory

    @property
    def title(self):
        """What it is called."""
        return self.uri or str(self.directory)


class Contents:
    """The versions that a store has, or has blobs of.

    Arguments:
        store: the Store.
        roots: the prune.Roots.
        config: the Config.

    ``versions`` is {(app name, digest): Version}, the name None for what somebody's pull has begun and nobody named;
    ``begun`` are the names below ``ingest`` of such pulls.
    """

    def __init__(self, store, roots, config):
        self._store, self.begun = store, others.unfinished(store)
        factory, keys = [Store(config.factory_store)], roots.versions()
        self.versions = {}

        def add(name, digest, directory, uri, ref):
            ref = ref or _nameless(name or "begun", digest, uri)
            self.versions[name, digest] = Version(directory, uri, ref, inventory.take(store, ref, factory))

        for name, number, directory in store.app_directories():
            digest, ref = f"sha256:{number}", store.app_at(directory)
            add(name, digest, directory, keys.get((name, digest)) or (str(ref) if ref else None), ref)
        for (name, digest), uri in keys.items():
            # Blobs may be there before the directory is: an update that is still being fetched.
            if (name, digest) not in self.versions and (
                    uri in roots.updating or roots.is_installed(uri) or store.size_of(digest) is not None):
                add(name, digest, None, uri, None)
        for digest in others.unnamed_apps(store) if self.begun else ():
            # Whose pull was cut off is not written down, but that there is one.
            add(None, digest, None, None, None)
        self._named = Counter(digest for each in self.versions.values() for digest in each.found.digests)
        self._images = Counter(uri for each in self.versions.values() for uri in each.found.images)
        # What an unfinished pull lacks it has not fetched yet.
        self._lacking = {key for key, each in self.versions.items() if each.found.lacks and key[0] is not None}
        self._held = roots.blobs

    def only_in(self, going, digests=()):
        """Return those digests that versions name, and of some further ones, that no other version does.

        Arguments:
            going: keys of ``versions``.
            digests: the further ones.
        """
        named = Counter(digest for key in going for digest in self.versions[key].found.digests)
        return {digest for digest in {*named, *digests} if self._named[digest] == named[digest]} - self._held

    def images_of(self, going):
        """Return {pinned reference: ImageFacts} of the images that versions name and no other version does."""
        images = {}
        for key in going:
            images.update(self.versions[key].found.images)
        named = Counter(uri for key in going for uri in self.versions[key].found.images)
        return {uri: facts for uri, facts in images.items() if self._images[uri] == named[uri]}

    def images_but(self, going):
        """Return {pinned reference: ImageFacts} of all images but those of some versions."""
        return {uri: facts for key, each in self.versions.items() if key not in going
                for uri, facts in each.found.images.items()}

    def removable(self, digests, going):
        """Return (Paths of those blobs that may go with some versions, sentences about why the others stay).

        Arguments:
            digests: no other version is known to name them.
            going: keys of ``versions``.
        """
        lacks, problems = inventory.WHOLE, []
        for key in self._lacking.difference(going):
            found = self.versions[key].found
            lacks = max(lacks, found.lacks)
            problems += [f"{problem}; blobs that it may need stay: fetch {key[0]} again ('composeapps pull'), then "
                         "prune again" for problem in found.problems]
        if lacks == inventory.ANYTHING:
            return [], problems
        paths = [path for path in map(self._store.blob_path, sorted(digests)) if _is_file(path)]
        return [path for path in paths if lacks == inventory.WHOLE or not inventory.is_document(path)], problems

    def drop(self, gone):
        """Take note that versions were removed: what they name is not needed for them any more."""
        for key in gone:
            self._lacking.discard(key)
            self._named.subtract(self.versions[key].found.digests)


class Going:
    """What goes of a store: versions, blobs, and downloads that nobody goes on with.

    Arguments:
        store: the Store.
        report: the prune.Report that gets the figures.
        versions: Versions with a directory.
        blobs: Paths of blobs.
        partials: Paths of what lies below ``ingest``.
    """

    def __init__(self, store, report, versions, blobs, partials=()):
        self._store, self._versions, self._blobs, self._partials = store, versions, blobs, partials
        report.apps += [each.title for each in versions]
        self._count(report)

    def _count(self, report):
        """Count it; a file that has a name elsewhere, in a factory store, frees nothing."""
        names = {}
        report.blobs, report.partials = len(self._blobs), len(self._partials)
        places = [*self._partials, *(each.directory for each in self._versions)]
        seconds = [held.path_of(self._store, f"sha256:{path.name}") for path in self._blobs]
        for path in (*self._blobs, *seconds, *places, *(path for place in places for path in place.rglob("*"))):
            with contextlib.suppress(OSError):
                status = path.lstat()
                key = (status.st_dev, status.st_ino)
                _, count = names.get(key, (None, 0))
                names[key] = (status, count + 1)
        for (device, _inode), (status, count) in names.items():
            # The number of a directory's links says nothing.
            if status.st_nlink <= count or stat.S_ISDIR(status.st_mode):
                report.bytes += status.st_blocks * 512
                report.freed_on[device] = report.freed_on.get(device, 0) + status.st_blocks * 512

    def carry_out(self, notify):
        """Remove it. A cut leaves directories without ``uri`` and blobs that nobody needs, nothing else."""
        for each in self._versions:
            notify(f"removing {each.title}")
            _remove_version(self._store, each.directory)
        for path in self._blobs:
            path.unlink(missing_ok=True)
            held.release(self._store, f"sha256:{path.name}")
        if self._blobs:
            durable.fsync_directory(self._store.blobs)
        for path in self._partials:
            _remove(path)


def _remove(path):
    """Remove a file or a directory with all below it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_version(store, directory):
    """Remove the directory of an app's version.

    First its ``uri``, durably: a cut after that leaves no app, and one before it leaves the app whole.
    The directories above it go when nothing else is in them.
    """
    if (directory / "uri").exists():
        (directory / "uri").unlink()
        durable.fsync_directory(directory)
    shutil.rmtree(directory)
    durable.fsync_directory(directory.parent)
    above = directory.parent
    while above != store.apps and not any(above.iterdir()):
        above.rmdir()
        above = above.parent
        durable.fsync_directory(above)


def _is_file(path):
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _nameless(name, digest, uri):
    """Return a Reference that stands for an app whose ``uri`` cannot be read: only its name and digest count."""
    return parse_pinned(uri) if uri else parse_pinned(f"localhost/unknown/{name}@{digest}")
