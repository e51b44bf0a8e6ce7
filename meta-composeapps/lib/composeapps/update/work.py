# SPDX-License-Identifier: MIT
"""What the steps of an update share: its journal, its versions as the store has them, its images, who is told."""

import contextlib

from composeapps.errors import (
    ComposeAppsError,
    CorruptError,
    EngineError,
    NotFoundError,
    StorageError,
    UnfinishedError,
)
from composeapps.installed import install
from composeapps.oci.names import AppName
from composeapps.oci.reference import parse_pinned
from composeapps.records import journal
from composeapps.records.state import AppState
from composeapps.switching import changes as differences
from composeapps.update import mending, telling


class Work:
    """One update of one app, under way.

    Arguments:
        parts: the Parts of the device.
        entry: its Journal, a new one or one that an earlier run left.

    ``entry`` is the Journal as it is now, ``left_behind`` whether an earlier run may have touched services,
    ``tell`` the telling.Telling, ``cause`` the error that led back, ``over`` the result, None until the end,
    ``checked`` the containers of which the locks were looked at just now, None when they were not.

    What a version is made of is read once for all steps: it is verified then, and a file that is placed is so again.
    """

    def __init__(self, parts, entry):
        self.parts, self.entry, self.name = parts, entry, entry.app
        self.left_behind = entry.begun
        self.cause, self.over, self.checked = None, None, None
        self.tell = telling.Telling(parts)
        self._images, self._apps = None, {}

    def record(self, must=True, **changes):
        """Write the journal; a file system that refuses is told only, unless it ``must`` be written."""
        try:
            self.entry = journal.write(self.parts.states, self.entry, **changes)
        except StorageError as err:
            if must:
                raise
            self.parts.notify(f"{self.name}: {err}; going on without it")
            self.entry = self.entry._replace(**changes)

    def doubt(self):
        """Have dockerd asked anew about the app's containers: what was known of them is of before other work."""
        self.parts.look.doubt(AppName(self.name).below(self.parts.config.compose_root))

    def keep(self, app):
        """Keep a version that was read, with its bundle's contents, for ``read``."""
        self._apps[str(app.ref)] = app
        return app

    def read(self, uri, heal=False, again=False):
        """Return a version as the store has it; raises what is wrong with it. With ``heal`` that is tried to be mended.

        One that was read before is not read ``again`` unless it is asked for.
        """
        if uri in self._apps and not again:
            return self._apps[uri]
        ref = parse_pinned(uri)
        try:
            return self.keep(install.load_from_store(self.parts.store, ref))
        except (CorruptError, NotFoundError):
            if not (heal and mending.mend(self.parts, ref)):
                raise
        return self.keep(install.load_from_store(self.parts.store, ref))

    def readable(self, uri):
        """Return a version, or None when there is none or the store cannot give it any more."""
        try:
            return self.read(uri) if uri else None
        except (CorruptError, NotFoundError):
            return None

    def between(self, old, new):
        """Return the Changes between two Apps."""
        try:
            return differences.between(old, new, self.parts.store)
        except (CorruptError, NotFoundError):
            # The version to leave is damaged: what differs is then what its containers show.
            return differences.between(None, new, self.parts.store)

    def load_images(self, app, again=False):
        """Load the images of an app that dockerd lacks, and return them.

        Damage in the store is mended for the version to go back to, and for the new one until something is touched.
        ``again`` forgets those that were loaded, of the other version.
        """
        if self._images is None or again:
            parts = self.parts
            try:
                self._images = install.load_images(app, parts.store, parts.look, parts.notify)
            except (CorruptError, NotFoundError):
                if str(app.ref) == self.entry.target and self.entry.begun or not mending.mend(parts, app.ref):
                    raise
                self._images = install.load_images(app, parts.store, parts.look, parts.notify)
        return self._images

    def put_state(self, uri, previous):
        """Write the state file: the app's installed version, and the one before it."""
        state = self.parts.states.get(self.name)
        if state is not None and state.uri == uri and state.previous == previous:
            return
        app = self.readable(uri)
        images = install.service_images(app, self.load_images(app)) if app else {}
        wanted = AppState(uri, images, state.stopped if state else False, previous)
        try:
            self.parts.states.put(self.name, wanted)
        except StorageError:
            if not journal.free_reserve(self.parts.states):
                raise
            self.parts.states.put(self.name, wanted)


@contextlib.contextmanager
def still_unfinished(entry, what):
    """A full disk within it keeps the journal as it is, so the next run comes here again: raises UnfinishedError."""
    try:
        yield
    except StorageError as err:
        raise UnfinishedError(f"app {entry.app}: {entry.target} {what}: {err}; "
                              "'composeapps update' goes on with it") from err


def restart(parts, uri):
    """Bring all services of the installed version up again, as far as that is possible."""
    from composeapps.switching import runtime

    state = parts.states.get(parse_pinned(uri).app_name)
    if state is None or state.stopped:
        return
    try:
        app = install.load_from_store(parts.store, parse_pinned(uri))
        parts.look.forget()
        state = install.install(app, parts.store, parts.look, parts.config, parts.states, parts.notify)
        runtime.start(app, state, parts.states, parts.config, parts.look)
    except ComposeAppsError as err:
        parts.notify(str(err))


def reachable(engine):
    """Return whether dockerd answers."""
    try:
        engine.data_root()
    except EngineError:
        return False
    return True


def result(app, source, target, kind):
    """Return what came of an update, ``kind`` being the word for it."""
    return {"app": app, "source": source, "target": target, "result": kind}
