# SPDX-License-Identifier: MIT
"""Finding out which version of an app is installed when its record is lost, from what is unpacked and labelled.

The versions that the store has of the app, and those that other records name, are held against the compose
file that lies unpacked and against the labels of the app's containers.
"""

import contextlib

from composeapps import COMPOSE_FILE, beneath
from composeapps.app import compose
from composeapps.engine import owned
from composeapps.engine.labels import FINGERPRINT, SERVICE
from composeapps.errors import ComposeAppsError, EngineError
from composeapps.installed import install
from composeapps.installed.placed import Placed
from composeapps.oci.names import AppName
from composeapps.oci.reference import parse_pinned
from composeapps.records import history
from composeapps.records.state import AppState


def recover(name, store, states, config, engine, factory=(), recorded=True):
    """Return the AppState of an installed app whose record is lost, None when nothing tells the version.

    Arguments:
        name: the app's name.
        store: the Store.
        states: the StateDirectory; nothing is written to it.
        config: the Config.
        engine: the Engine; one that does not answer tells nothing.
        factory: pinned references of preloaded versions.
        recorded: something of the app was recorded, so that the only version there is will be it.

    Names of images are left out: the next installation of the version finds them.
    """
    entries = [entry for entry in history.entries(states, name) if entry.get("result") == "committed"]
    candidates = _candidates(name, store, [*factory, *(entry.get("target") for entry in entries),
                                           *(entry.get("source") for entry in entries)])
    last = str(entries[-1].get("target") or "") if entries else ""
    labelled = _labelled(name, config, engine)
    scores = [(_score(ref, store, config, labelled), str(ref) == last, str(ref)) for ref in candidates]
    if not scores or not max(scores)[0] and (len(scores) > 1 or not recorded):
        return None
    _score_of_best, _last, uri = max(scores)
    before = [str(entry.get("source") or "") for entry in entries if entry.get("target") == uri]
    previous = before[-1] if before and before[-1] in map(str, candidates) else ""
    return AppState(uri, previous=previous)


def left_behind(store, states, config, engine):
    """Return the names of apps that have no record at all, but containers that this agent made, sorted.

    Containers of other agents on the same directories are theirs. Raises nothing of dockerd's.
    """
    return [name for name in unrecorded(store, states, config) if _has_containers(name, config, engine)]


def is_left_behind(name, store, states, config, engine):
    """Tell whether an app is one of those that ``left_behind`` names. Raises nothing."""
    return name not in states.names() and name not in states.removals() \
        and any(ref.app_name == name for ref in store.list_apps()) and _is_unpacked(AppName(name), config) \
        and _has_containers(AppName(name), config, engine)


def unrecorded(store, states, config):
    """Return the names of apps that are in the store and unpacked, and of which nothing is recorded, sorted."""
    recorded = {*states.names(), *states.removals()}
    names = {AppName(ref.app_name) for ref in store.list_apps()} - recorded
    return [name for name in sorted(names) if _is_unpacked(name, config)]


def _is_unpacked(name, config):
    return Placed(config.compose_root, name).compose_file() is not None


def _has_containers(name, config, engine):
    return any(FINGERPRINT in labels for labels in _labelled(name, config, engine))


def _candidates(name, store, uris):
    """Return the References of the versions that may be it, each digest once."""
    found = {ref.digest: ref for ref in store.list_apps() if ref.app_name == name}
    # A version whose ``uri`` in the store is damaged is known by what other records call it.
    numbers = {number for each, number, _directory in store.app_directories() if each == name}
    for uri in uris:
        with contextlib.suppress(ComposeAppsError):
            ref = parse_pinned(str(uri or ""))
            if ref.app_name == name and ref.hex in numbers:
                found.setdefault(ref.digest, ref)
    return list(found.values())


def _labelled(name, config, engine):
    """Return the labels of each of an app's containers."""
    try:
        directory = AppName(name).below(config.compose_root)
        return [each.get("Labels") or {} for each in owned.listed(engine, directory)]
    except EngineError:
        return []


def _score(ref, store, config, labelled):
    """Return how much speaks for a version, more for more."""
    try:
        text = beneath.read_regular(store.app_dir(ref) / COMPOSE_FILE)
    except OSError:
        text = None
    score = 0
    with contextlib.suppress(OSError):
        if text is not None and Placed(config.compose_root, ref.app_name).compose_file() == text:
            score += 4
    with contextlib.suppress(ComposeAppsError, RecursionError):
        app = install.load_from_store(store, ref)
        if not install.bundle_problems(app, store, config):
            score += 2
        text = app.compose
    if text is not None:
        with contextlib.suppress(ComposeAppsError, RecursionError):
            hashes = {service.name: service.config_hash for service in compose.services(text, f"app {ref}")}
            if labelled and all(hashes.get(labels.get(SERVICE)) == labels.get(compose.CONFIG_HASH)
                                for labels in labelled):
                score += 2
    return score
