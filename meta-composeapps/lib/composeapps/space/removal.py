# SPDX-License-Identifier: MIT
"""Removing an app from the device: what runs, what is installed, and what the store has only for it.

Named volumes stay unless their removal is asked for, and of a preloaded app the version of the
factory set stays in the store, for a reset.

A note is written first (``StateDirectory.note_removal``): from then on the app is not started at
boot, and what is still to be done is known, so that a removal which was cut off is finished by
the next one. The order: the note; the journal of an update, so that it does not go on; the
containers and networks; the bundle; the state; the directories in the store, the ``uri`` first;
the blobs that only this app named; dockerd's images. The note goes last, and is kept without
any content for a preloaded app, which the next boot would install again.
"""

import contextlib

from composeapps import durable
from composeapps.engine import teardown
from composeapps.errors import CorruptError, EngineError, NotFoundError, UsageError
from composeapps.installed import appfiles, install, naming
from composeapps.installed.placed import Placed
from composeapps.oci.names import AppName
from composeapps.oci.reference import parse_pinned
from composeapps.records import history
from composeapps.space import staleimages
from composeapps.space.prune import Plan, Report, Roots, find_roots


def remove_app(name, store, states, config, engine, volumes=False, notify=lambda text: None, keep=False):
    """Remove an app, or finish that.

    Arguments:
        name: the app's name.
        store: the Store.
        states: the StateDirectory; its lock is held by the caller.
        config: the Config.
        engine: the Engine.
        volumes: remove its volumes as well.
        notify: called with a line of text at each step that takes time.
        keep: leave the store as it is.

    Returns (prune.Report, teardown.Gone). Raises UsageError for what is no name, NotFoundError when there is
    nothing of the app, EngineError when dockerd cannot be reached and may have containers of it, StorageError.
    """
    name = AppName(name)
    directory = name.below(config.compose_root)
    note = states.removals().get(name) or {}
    versions = [path for found, _number, path in store.app_directories() if found == name]
    others = {*states.names(), *(found for found, _number, _path in store.app_directories())}
    # A directory that nothing else tells of is an app's when it has a compose file, and is no other app's data.
    placed = Placed(config.compose_root, name)
    installed = name in states.names() or placed.read() is not None or placed.compose_file() is not None \
        and not any(other.holds(name) for other in others)
    roots = Roots(store, states, config, None)
    roots.forget(name)
    factory = {digest.partition(":")[2] for found, digest in roots.versions() if found == name}
    # Which version is the factory's cannot be told while their list is unreadable.
    doomed = [] if roots.everything or keep else [path for path in versions if path.name not in factory]
    if not (note or installed or doomed):
        if not keep and _remembered(states, name):
            # All that there is of it is what status tells of an update that failed.
            _forget_update(states, name)
            _note_removed(states, name, notify)
            return Report(), teardown.Gone()
        if versions and keep:
            raise NotFoundError(f"app '{name}' is not installed: there is nothing of it but in the store")
        if versions:
            raise NotFoundError(f"app '{name}' is removed already; its preloaded version stays in the store for a "
                                f"reset, and 'composeapps run {name}' brings it back")
        have = ", ".join(sorted({*states.names(), *(ref.app_name for ref in store.list_apps())})) or "none"
        raise NotFoundError(f"app '{name}' is not on this device; its apps: {have}")
    report, gone = Report(problems=roots.problems), teardown.Gone()
    reachable = _reachable(engine, installed or note)
    blobs = _texts(note, "blobs")
    plan = Plan(store, roots, config, report, doomed=doomed, blobs=[] if keep else blobs)
    if keep:
        plan.give_up_images(versions)
    volumes = volumes or note.get("volumes") is True
    projects = {*_texts(note, "projects"), *_projects(name, directory, config, states, engine if reachable else None)}
    # On a full disk a removal that is cut off can be given again as well, but the next boot may start the app.
    with durable.if_there_is_room():
        states.note_removal(name, {"projects": sorted(projects), "volumes": volumes,
                                    "blobs": sorted({*blobs, *plan.digests})})
    _forget_update(states, name)
    with durable.storage_errors(f"removing app {name}"), durable.if_there_is_room(), \
            contextlib.suppress(CorruptError, NotFoundError, UsageError):
        state = states.get(name)
        if state is not None and Placed(config.compose_root, name).read() is None:
            appfiles.adopt(install.load_from_store(store, parse_pinned(state.uri)), store, config)
    if reachable:
        gone = teardown.take_down(engine, directory, projects, volumes, notify)
    with durable.storage_errors(f"removing app {name}"):
        appfiles.remove(name, config, others, notify)
        states.remove_override(name)
        if volumes and reachable:
            naming.forget(states, name)
        (states.root / "progress" / f"{name.file_stem}.json").unlink(missing_ok=True)
        states.remove(name)
        # Only now can dockerd's images be judged: the containers are gone.
        stale = staleimages.StaleImages(states, plan.lost_images, plan.kept_images)
        with durable.if_there_is_room():
            stale.note()
        if reachable:
            stale.count(engine, report)
        plan.carry_out(notify)
        if reachable:
            stale.remove(engine, report)
    if not keep:
        _note_removed(states, name, notify)
    if factory:
        states.note_removal(name, {})
    else:
        states.forget_removal(name)
    return report, gone


def remove_one_version(ref, store, states, config, engine, notify=lambda text: None):
    """Remove one version from the store, one that nothing on the device needs.

    Arguments:
        ref: its pinned Reference; the others are those of ``remove_app``.

    Returns the prune.Report. Raises UsageError for a version that is needed, saying for what, and NotFoundError.
    """
    directory = store.app_dir(ref)
    if not directory.is_dir():
        raise NotFoundError(f"{ref} is not in the store {store.root}")
    report = Report()
    roots, engine = find_roots(store, states, config, engine, report)
    why = roots.why.get(roots.versions().get((ref.app_name, ref.digest)))
    if why:
        raise UsageError(f"{ref} is needed ({why}): 'composeapps rm {ref.app_name}' removes the app with all its "
                         "versions")
    plan = Plan(store, roots, config, report, doomed=[directory])
    stale = staleimages.StaleImages(states, plan.lost_images, plan.kept_images)
    with durable.storage_errors(f"removing {ref}"):
        with durable.if_there_is_room():
            stale.note()
        if engine is not None:
            stale.count(engine, report)
        plan.carry_out(notify)
        if engine is not None:
            stale.remove(engine, report)
    return report


def _reachable(engine, needed):
    try:
        engine.containers("composeapps.none")
    except EngineError:
        if needed:
            raise
        return False
    return True


def _texts(note, key):
    value = note.get(key)
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _projects(name, directory, config, states, engine):
    compose_file = Placed(config.compose_root, name).compose_file()
    return naming.all_of(name, directory, compose_file, states, engine)


def _remembered(states, name):
    """Tell whether the journal or the history has an update of an app that did not come to its end."""
    from composeapps.records import journal

    last = history.entries(states, name)[-1:]
    return journal.read(states, name) is not None or any(each.get("result") not in history.GOOD for each in last)


def _note_removed(states, name, notify):
    """End what ``status`` tells of the app's last update."""
    if _remembered(states, name):
        history.append(states, {"app": name, "action": "remove", "result": history.REMOVED}, notify)


def _forget_update(states, name):
    from composeapps.records import journal

    journal.remove(states, name)
