# SPDX-License-Identifier: MIT
"""The product's own commands: installing, running, restoring, updating a bundle, remembering states."""

import contextlib
import tempfile

from composeapps import durable
from composeapps.errors import ComposeAppsError
from composeapps.installed.install import bundle_problems, load_from_store, place_bundle
from composeapps.oci.reference import parse_pinned
from composeapps.records.state import AppState, StateDirectory
from composeapps.store.restore import from_factory
from composeapps.store.store import Store
from crash import contents
from crash.errors import CrashError
from crash.namespaces import HOME
from crash.workloads.base import Workload, expect
from support import registries
from support.images import push_blob, push_manifest


class Install(Workload):
    """``composeapps install`` of all apps."""

    name = "install"

    def record(self, place):
        place.agent("install", *sorted(place.world.apps))

    def oracle(self, place):
        return store_problems(place)

    def finish(self, place):
        return (expect(place, "install", *sorted(place.world.apps)) or expect(place, "check"))


class Run(Workload):
    """``composeapps run`` of all apps by docker compose, then ``stop`` of one."""

    name = "run"
    preloaded = 0

    def record(self, place):
        names = sorted(place.world.apps)
        place.agent("run", *names)
        place.agent("stop", names[0])

    def oracle(self, place):
        return store_problems(place)

    def finish(self, place):
        return (expect(place, "run", *sorted(place.world.apps)) or expect(place, "check"))


class Restore(Workload):
    """Blobs are written into the restorable store and apps appear in it: from the factory store."""

    name = "restore"
    daemon = False

    def prepare(self, place):
        contents.fill_store(place.factory, place.layout.store, sorted(place.world.apps)[:1])

    def record(self, place):
        _restore_all(place)

    def oracle(self, place):
        return store_problems(place)

    def finish(self, place):
        _restore_all(place)
        apps = {str(ref) for ref in Store(place.layout.store).list_apps()}
        missing = sorted(set(place.world.apps.values()) - apps)
        return [f"app {uri} is not in the store" for uri in missing] or store_problems(place)


class Bundle(Workload):
    """The files of an app's bundle are brought to another version, and back, several times."""

    name = "bundle"
    daemon = False
    rounds = 4
    size = {"count": 1, "small": 4, "large": 0, "versions": 2}

    def prepare(self, place):
        contents.fill_store(place.factory, place.layout.store)
        _place(place, versions_of(place)[0])

    def record(self, place):
        for number in range(self.rounds):
            _place(place, versions_of(place)[(number + 1) % 2])

    def oracle(self, place):
        store = Store(place.layout.store)
        # Files are brought in one by one, so each has to be one version's; the next start finishes the rest.
        config = place.layout.config()
        old, new = ([*bundle_problems(_version(place, uri), store, config)] for uri in versions_of(place))
        return [f"a file of the bundle is neither of both versions: {problem}" for problem in old if problem in new]

    def finish(self, place):
        problems = []
        for uri in versions_of(place):
            _place(place, uri)
            problems += bundle_problems(_version(place, uri), Store(place.layout.store), place.layout.config())
        return problems


class ManyFiles(Bundle):
    """The same with so many files that they are synced together."""

    name = "bundle-many"
    rounds = 2
    size = {**Bundle.size, "parts": 30}


class States(Workload):
    """The agent's own file of an app is replaced again and again."""

    name = "states"
    daemon = False
    rounds = 12
    size = {"count": 1, "small": 4, "large": 0}

    def _state(self, number):
        return AppState(f"hub.demo.test/crash/app@sha256:{number:064x}", {"main": f"sha256:{number:064x}"},
                        number % 2 == 1)

    def prepare(self, place):
        durable.make_directories(place.layout.state)
        StateDirectory(place.layout.state).put("app", self._state(0))

    def record(self, place):
        for number in range(1, self.rounds):
            StateDirectory(place.layout.state).put("app", self._state(number))

    def oracle(self, place):
        found = StateDirectory(place.layout.state).get("app")
        known = [self._state(number) for number in range(self.rounds)]
        return [] if found in known else [f"the state of the app is none that was written: {found}"]

    def finish(self, place):
        states = StateDirectory(place.layout.state)
        states.put("app", self._state(1))
        return [] if states.get("app") == self._state(1) else ["the state of the app cannot be replaced"]


class PullApps(Workload):
    """``composeapps pull`` of all apps from a registry, into a store that has one of them."""

    name = "agent-pull"
    daemon = False

    def prepare(self, place):
        contents.fill_store(place.factory, place.layout.store, sorted(place.world.apps)[:1])

    def record(self, place):
        with _registry(place) as env:
            place.agent("pull", "--no-space-check", *versions_of(place), env=env)

    def oracle(self, place):
        return store_problems(place)

    def finish(self, place):
        with _registry(place) as env:
            problems = expect(place, "pull", "--no-space-check", *versions_of(place), env=env)
        left = sorted(path.name for path in Store(place.layout.store).ingest.glob("*"))
        return (problems or expect(place, "check", "--store-only")
                or [f"{left[0]} is left under ingest" for _ in left[:1]])


class UpdateApp(Workload):
    """An app that runs is updated twice, goes back once, and what it no longer needs is pruned."""

    name = "agent-update"
    size = {"count": 1, "versions": 3, "small": 15, "large": 1, "image_each": True}

    def fill_daemon(self, place):
        super().fill_daemon(place)
        place.agent("run", versions_of(place)[0])

    def record(self, place):
        first, second, third = versions_of(place)
        place.agent("update", "--soak", "0", second)
        place.agent("rollback", "--soak", "0", "app0")
        place.agent("update", "--soak", "0", second)
        place.agent("update", "--soak", "0", third)
        place.agent("prune")
        gone = {str(ref) for ref in Store(place.layout.store).list_apps()}
        if first in gone:
            raise CrashError(f"prune has left {first}, which nothing needs")

    def oracle(self, place):
        return store_problems(place)

    def restock(self, place):
        contents.fill_store(place.factory, place.layout.store)

    def finish(self, place):
        problems = expect(place, "run", "--installed") or expect(place, "update", "--soak", "0")
        problems = problems or expect(place, "check")
        state = StateDirectory(place.layout.state).get("app0")
        if state is None or state.uri not in versions_of(place):
            return [*problems, f"the app is at no version of it: {state}"]
        app = _version(place, state.uri)
        store = Store(place.layout.store)
        problems += bundle_problems(app, store, place.layout.config())
        wanted = [image.variants[0].document.config.digest for image in app.images.values()]
        found = [each["ImageID"] for each in place.docker.containers()
                 if (each.get("Labels") or {}).get("com.docker.compose.project") == "app0"]
        if found != wanted:
            problems.append(f"containers are of the images {found}, not {wanted}")
        return problems


AgentWorkloads = (Install, Run, Restore, Bundle, ManyFiles, States, PullApps, UpdateApp)


@contextlib.contextmanager
def _registry(place):
    """A registry that has all the world's apps; gives the environment with which the agent finds it."""
    store = Store(place.factory)
    with tempfile.TemporaryDirectory(dir=HOME) as directory, registries.open_registry(directory) as registry:
        for uri in versions_of(place):
            app = load_from_store(store, parse_pinned(uri))
            push_blob(registry, app.ref.path, b"{}")
            # What is named goes before what names it.
            for blob in sorted(reversed(list(app.blobs())), key=lambda blob: blob.kind):
                data = b"".join(store.chunks(blob.descriptor.digest))
                if blob.kind == "blobs":
                    push_blob(registry, blob.ref.path, data)
                else:
                    push_manifest(registry, blob.ref.path, blob.descriptor.digest, blob.descriptor.media_type, data)
        yield {"COMPOSEAPPS_ENDPOINTS": registry.endpoint}


def store_problems(place):
    """Return what breaks the restorable store's promise: a blob under its name is whole, a listed app complete."""
    store, problems = Store(place.layout.store), []
    if store.blobs.is_dir():
        for path in sorted(store.blobs.iterdir()):
            problem = store.verify(f"sha256:{path.name}")
            if problem:
                problems.append(problem)
    for ref in store.list_apps():
        try:
            for blob in load_from_store(store, ref).blobs():
                if not blob.optional and store.size_of(blob.descriptor.digest) != blob.descriptor.size:
                    problems.append(f"app {ref} is listed without its blob {blob.descriptor.digest}")
        except ComposeAppsError as err:
            problems.append(f"app {ref} is listed and cannot be read: {err}")
    return problems


def _restore_all(place):
    for name in sorted(place.world.apps):
        from_factory(Store(place.layout.store), place.factory, name)


def versions_of(place):
    return [place.world.apps[name] for name in sorted(place.world.apps)]


def _version(place, uri):
    return load_from_store(Store(place.layout.store), parse_pinned(uri))


def _place(place, uri):
    place_bundle(_version(place, uri), Store(place.layout.store), place.layout.config())


