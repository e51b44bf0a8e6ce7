# SPDX-License-Identifier: MIT
"""Bringing an app's containers from one version to another."""


def before_download(old, new, changes, states, engine, config, force=False, notify=lambda text: None):
    """Do what the strategies kill-then-download and delete-then-download want done before the fetch.

    Arguments:
        old: the App that is installed, or None: then nothing is done.
        new: the App that is to take its place; only its images' references are looked at.
        changes: the Changes between the two.
        states: the StateDirectory; its lock is held by the caller.
        engine: the Engine.
        config: the Config.
        force: override update locks.
        notify: called with a line of text at each step that takes time.

    Returns whether anything was stopped: then the old version no longer runs in whole. Raises
    UpdateLockedError before anything was touched, EngineError.
    """
    return False


def check_locks(old, new, changes, states, engine, config, force=False, notify=lambda text: None):
    """Raise UpdateLockedError when a container that ``apply`` would stop holds its update lock; touch nothing."""


def apply(old, new, images, changes, states, engine, config, store, force=False, notify=lambda text: None):
    """Bring the app's containers to the version ``new``; running it again from any state ends in the same.

    Arguments:
        old: the App whose containers may still be there, or None.
        new: the App to run; its images are loaded.
        images: what install.load_images returned for ``new``.
        changes: the Changes between the two.
        states: the StateDirectory; its lock is held by the caller. An app that the user stopped gets its
            bundle and loses removed services, and stays stopped.
        engine: the Engine.
        config: the Config.
        store: the Store, for the bundle.
        force: override update locks.
        notify: called with a line of text at each step that takes time.

    Raises UpdateLockedError before anything was touched; EngineError, NotRunningError (a hand-over
    failed: the old container still runs), CorruptError, NotFoundError, StorageError.
    """
    from composeapps import install, runtime
    from composeapps.state import AppState

    install.place_bundle(new, store, config)
    state = AppState(str(new.ref), install.service_images(new, images))
    runtime.start(new, state, states, config)
