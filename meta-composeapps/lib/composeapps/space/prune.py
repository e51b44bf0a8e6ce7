# SPDX-License-Identifier: MIT
"""Pruning: what no version of an app that this device may need refers to is removed.

Kept are, of each app, the installed version and the one before it (a rollback needs no network
then), the factory set, the versions that an unfinished update goes between, versions that
running containers were made from, and every version of an app that the configuration's list of
apps (``compose_apps``) names and that is not installed yet: it was fetched in advance. An app
outside that list is removed only when it is not installed. What composectl installed is installed, too, and
what it has begun to fetch it may go on with: see space.others. Everything else is removed.

What cannot be judged is kept and reported: an app of which a document is damaged keeps every
blob that it may name. It never keeps the other apps from being pruned.

The order makes each cut harmless: first the images are noted that dockerd is to lose, then the
``uri`` of each app goes, by which it ceases to be an app, then its directory, then the blobs,
then dockerd's images. Whatever a cut leaves of these the next run finds again.
"""

import contextlib
import os

from composeapps import durable
from composeapps.engine import look
from composeapps.errors import ComposeAppsError, EngineError
from composeapps.oci.digests import is_digest
from composeapps.oci.reference import parse_pinned
from composeapps.space import others, staleimages
from composeapps.space.contents import Contents, Going
from composeapps.store import inventory
from composeapps.store.store import Store

INSTALLED, PREVIOUS, FACTORY = "installed", "the version before the installed one", "factory"
UPDATING, LISTED = "an update or a download is unfinished", "in compose_apps, not installed yet"
RUNNING, UNPACKED, OTHERS = "a container runs it", "its bundle is unpacked", "an update of composectl is unfinished"
UNJUDGED, ASKED = "cannot be judged", "asked for"


class Report:
    """What was removed, or would be.

    ``apps`` are the pinned references (or directories) of the versions removed; ``kept`` maps the
    others to the reason; ``blobs`` counts the blobs and ``bytes`` the bytes that they and the apps'
    directories took in the store; ``images`` are names of images in dockerd and ``docker_bytes`` what
    their layers took there, by the layers-meta or an estimate; ``partials`` counts unfinished downloads.
    ``problems`` are sentences about what could not be judged, ``of_dockerd`` those about what it would not do.
    ``freed_on`` has the bytes by file system.
    """

    def __init__(self, problems=None):
        self.apps, self.kept = [], {}
        self.blobs = self.bytes = 0
        self.images, self.docker_bytes = [], 0
        self.partials, self.problems, self.freed_on = 0, [] if problems is None else problems, {}
        self.of_dockerd = []

    def dump(self):
        """Return this as JSON-ready data."""
        return {"apps": self.apps, "kept": self.kept, "blobs": self.blobs, "bytes": self.bytes, "images": self.images,
                "docker_bytes": self.docker_bytes, "partials": self.partials,
                "problems": [*self.problems, *self.of_dockerd]}


def protected(store, states, config, engine=None):
    """Return the pinned references (texts) of the versions that pruning keeps, in the store or not.

    Arguments:
        store: the Store.
        states: the StateDirectory.
        config: the Config.
        engine: the Engine, whose running containers keep their versions; None to leave them out.

    Raises EngineError.
    """
    return set(Roots(store, states, config, engine).why)


def would_free(store, states, config, engine, keep=()):
    """Return the Report of a pruning that is not done; ``keep`` are digests that are not to count as freed."""
    return prune(store, states, config, engine, dry_run=True, keep_digests=keep)


def prune(store, states, config, engine, dry_run=False, keep=(), keep_digests=(), notify=lambda text: None):
    """Remove what nobody needs from the store and from dockerd.

    Arguments:
        store, states, config: as for ``protected``; the lock of ``states`` is held by the caller unless
            ``dry_run`` is set.
        engine: the Engine; None leaves dockerd alone.
        dry_run: only find out.
        keep: further pinned references (texts) to keep.
        keep_digests: further blobs to keep.
        notify: called with a line of text for each app that is removed.

    Returns the Report. Raises StorageError when the file system refuses.
    """
    report = Report()
    roots, engine = find_roots(store, states, config, look.at(engine) if engine is not None else None, report)
    for uri in keep:
        roots.add(uri, ASKED)
    plan = Plan(store, roots, config, report, keep_digests)
    stale = staleimages.StaleImages(states, plan.lost_images, plan.kept_images)
    if engine is not None:
        stale.count(engine, report)
    if not dry_run:
        with durable.storage_errors("pruning"):
            # A cut from here on leaves a note of images that dockerd may not have any more: harmless. On a full
            # disk there is none, and a cut leaves these images to 'docker image prune'.
            with durable.if_there_is_room():
                stale.note()
            plan.carry_out(notify)
            if engine is not None:
                stale.remove(engine, report)
    return report


def find_roots(store, states, config, engine, report):
    """Return (Roots, Engine), the latter None when dockerd cannot be reached, which ``report`` then says."""
    try:
        roots = Roots(store, states, config, engine)
    except EngineError as err:
        report.of_dockerd.append(f"{err}; its images stay until the next 'composeapps prune'")
        engine, roots = None, Roots(store, states, config, None)
    report.problems += roots.problems
    return roots, engine


class Roots:
    """The versions to keep: ``why`` maps pinned references to the reason."""

    def __init__(self, store, states, config, engine):
        self.why, self.problems, self.all_of, self.everything = {}, [], set(), False
        self.updating, self.factory, self.blobs = [], set(), set()
        self._installed(store, states)
        self._factory(config)
        self._updates(states)
        self._shortlist(store, states, config)
        if engine is not None:
            self._containers(store, look.at(engine))
        self._others(store, states, config)

    def add(self, uri, why):
        """Keep a version; one that is no pinned reference is nothing that a store could have."""
        with contextlib.suppress(ComposeAppsError):
            self.why.setdefault(str(parse_pinned(uri)), why)

    def is_installed(self, uri):
        """Tell whether a pinned reference is that of an installed version."""
        return self.why.get(uri) == INSTALLED

    def versions(self):
        """Return {(app name, digest): pinned reference}."""
        refs = [parse_pinned(uri) for uri in self.why]
        return {(ref.app_name, ref.digest): str(ref) for ref in refs}

    def _installed(self, store, states):
        for name in states.names():
            state = states.get(name)
            if state is None:
                self.all_of.add(name)
                self.problems.append(f"the state of app {name} cannot be read: all its versions stay until "
                                     "it is installed again")
                continue
            self.add(state.uri, INSTALLED)
            if not self._present(store, state.uri):
                # The state may be what is damaged.
                self.all_of.add(name)
                self.problems.append(f"the installed version {state.uri} is not in the store: all versions of {name} "
                                     "stay")
            if state.previous:
                self.add(state.previous, PREVIOUS)

    def _present(self, store, uri):
        try:
            return store.app_dir(parse_pinned(uri)).is_dir()
        except ComposeAppsError:
            return False

    def _factory(self, config):
        from composeapps.store.factoryset import factory_apps

        try:
            for uri in factory_apps(config).values():
                self._add_factory(uri)
        except ComposeAppsError as err:
            listed = Store(config.factory_store).list_apps()
            self.everything = not listed
            for ref in listed:
                self._add_factory(str(ref))
            self.problems.append(f"{err}: " + ("the apps of the factory store stay" if listed else "all apps stay"))

    def _add_factory(self, uri):
        self.add(uri, FACTORY)
        with contextlib.suppress(ComposeAppsError):
            self.factory.add(str(parse_pinned(uri)))

    def forget(self, names):
        """Drop the versions of apps but those of the factory set, whatever else they are."""
        refs = {uri: parse_pinned(uri) for uri in self.why}
        self.why = {uri: FACTORY if refs[uri].app_name in names else why for uri, why in self.why.items()
                    if refs[uri].app_name not in names or uri in self.factory}
        self.all_of.difference_update(names)

    def _updates(self, states):
        from composeapps.records import journal, lock

        wanted = [uri for each in journal.pending(states) for uri in (each.target, each.source)]
        for uri in filter(None, (*wanted, *lock.subjects_of(states.download_lock_file))):
            self.updating.append(uri)
            self.add(uri, UPDATING)

    def _others(self, store, states, config):
        """Keep what composectl has installed, or is about to."""
        uris, self.blobs = others.updating(store)
        for uri in uris:
            self.updating.append(uri)
            self.add(uri, OTHERS)
        known, unpacked = set(states.names()), others.unpacked(store, config)
        for ref in store.list_apps():
            if ref.digest in unpacked.get(ref.app_name, ()):
                self.add(str(ref), UNPACKED)
        self.all_of.update(name for name, digests in unpacked.items() if not digests and name not in known)

    def _shortlist(self, store, states, config):
        installed = set(states.names())
        for ref in store.list_apps() if config.apps else ():
            if ref.app_name in config.apps and ref.app_name not in installed:
                self.add(str(ref), LISTED)

    def _containers(self, store, engine):
        """Keep the versions of running containers, those that no kept version accounts for."""
        used = {c["ImageID"] for c in engine.containers() if c.get("State") == "running"}
        if not used:
            return
        refs = {str(ref): ref for ref in store.list_apps()}
        images = {uri: staleimages.identifiers(inventory.take(store, ref), engine) for uri, ref in refs.items()}
        for uri in set(images) & set(self.why):
            used -= images[uri]
        for uri, identifiers in images.items():
            if identifiers & used:
                self.add(uri, RUNNING)


class Plan:
    """What goes and what stays of a store.

    Arguments:
        store, roots, config: the Store, the Roots, the Config.
        report: the Report that gets the figures.
        keep_digests: blobs to keep besides.

    ``lost_images`` and ``kept_images`` are {pinned reference: ImageFacts} of the versions that go and stay.
    """

    def __init__(self, store, roots, config, report, keep_digests=()):
        contents, keys = Contents(store, roots, config), roots.versions()
        doomed, kept = [], {*keep_digests, *roots.blobs}
        self._kept_directories = []
        for key, version in contents.versions.items():
            if version.directory is not None and not (key in keys or roots.everything or key[0] in roots.all_of):
                doomed.append(key)
                continue
            kept |= version.found.digests
            if version.directory is not None:
                self._kept_directories.append(version.directory)
                report.kept[version.title] = roots.why.get(version.uri, UNJUDGED)
        self.kept_images, self.lost_images = contents.images_but(set(doomed)), {}
        for key in doomed:
            self.lost_images.update(contents.versions[key].found.images)
        blobs, problems = contents.removable(_blobs(store) - kept, doomed)
        report.problems += problems
        partials = [] if roots.updating else _unfinished(store, kept, contents.begun)
        self._going = Going(store, report, [contents.versions[key] for key in doomed], blobs, partials)

    def carry_out(self, notify):
        """Remove it, as Going does, and what writers that were killed left beside what stays."""
        for directory in self._kept_directories:
            for temporary in directory.rglob(".tmp-*"):
                temporary.unlink(missing_ok=True)
        self._going.carry_out(notify)


def _blobs(store):
    """Return the digests of what lies under the names of blobs."""
    with contextlib.suppress(FileNotFoundError), os.scandir(store.blobs) as entries:
        return {digest for entry in entries if is_digest(digest := f"sha256:{entry.name}")}
    return set()


def _unfinished(store, kept, begun):
    with contextlib.suppress(FileNotFoundError):
        return [store.ingest / name for name in os.listdir(store.ingest)
                if f"sha256:{name[:64]}" not in kept and name not in begun]
    return []
