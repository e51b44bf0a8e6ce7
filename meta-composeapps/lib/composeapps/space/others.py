# SPDX-License-Identifier: MIT
"""What composectl has in hand on this device, of which no record of the agent's tells.

An app that it installed is known by its unpacked bundle, a pull that was cut off by the directories that
containerd's content store keeps of unfinished blobs, an update by ``updates.db`` in the store. That is a
bbolt file: its values are found by how they begin, and of several copies of one the last written counts.
"""

import contextlib
import json
import os
import re
import time

from composeapps import COMPOSE_FILE, beneath
from composeapps.app import bundle as bundles
from composeapps.app.tree import ARTIFACT_TYPE, MAX_MANIFEST
from composeapps.errors import ComposeAppsError
from composeapps.oci.digests import is_digest
from composeapps.store import appdir
from composeapps.store.partial import KEEP_SECONDS

_MAX_DATABASE = 64 * 1024 * 1024
_UPDATE = re.compile(rb'\{"id":"[0-9A-Z]{26}","client_ref":')
_ENDED = ("update:state:completed", "update:state:failed", "update:state:canceled")


def unpacked(store, config):
    """Return {app name: the digests of the versions whose bundle is unpacked}; none when that cannot be told.

    Arguments:
        store: the Store.
        config: the Config.

    Names are those of apps in the store that have a directory below the compose root with a compose file in it.
    """
    versions, found = {}, {}
    for name, number, directory in store.app_directories():
        versions.setdefault(name, []).append((f"sha256:{number}", directory))
    try:
        root = beneath.Root(config.compose_root)
    except OSError:
        return found
    try:
        for name, apps in versions.items():
            path = f"{name}/{COMPOSE_FILE}"
            try:
                if root.lstat(path) is None:
                    continue
                compose = root.read(path, bundles.MAX_COMPOSE)
            except OSError:
                found[name] = set()
                continue
            found[name] = {digest for digest, directory in apps if _compose_of(store, digest, directory) == compose}
    finally:
        root.close()
    return found


def _compose_of(store, digest, directory):
    with contextlib.suppress(ComposeAppsError, OSError):
        return appdir.compose_file(store, digest, directory)
    return None


def updating(store):
    """Return (pinned references, digests of blobs) that an unfinished update of composectl has to do with."""
    try:
        with beneath.open_regular(store.root / "updates.db") as stream:
            data = stream.read(_MAX_DATABASE)
    except OSError:
        return set(), set()
    latest = {}
    starts = [found.start() for found in _UPDATE.finditer(data)]
    for start, end in zip(starts, [*starts[1:], None], strict=False):
        # A page that is free again may begin with anything. No value has the beginning of one in it.
        try:
            value, _length = json.JSONDecoder().raw_decode(data[start:end].partition(b"\0")[0].decode(errors="replace"))
        except (ValueError, RecursionError):
            continue
        known = latest.get(value["id"])
        if known is None or str(known.get("update_time")) <= str(value.get("update_time")):
            latest[value["id"]] = value
    uris, digests = set(), set()
    for value in latest.values():
        if value.get("state") not in _ENDED:
            uris.update(uri for uri in _items(value.get("uris")) if isinstance(uri, str))
            digests.update(digest for digest in _items(value.get("blobs")) if is_digest(digest))
    return uris, digests


def _items(value):
    return value if isinstance(value, list | dict) else ()


def unfinished(store):
    """Return the names in ``ingest`` of blobs that containerd's content store has begun, no more than a week ago."""
    found = set()
    with contextlib.suppress(OSError), os.scandir(store.ingest) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False) and os.path.isfile(os.path.join(entry.path, "ref")):
                    data = os.stat(os.path.join(entry.path, "data"), follow_symlinks=False)
                    if time.time() - data.st_mtime <= KEEP_SECONDS:
                        found.add(entry.name)
    return found


def unnamed_apps(store):
    """Return the digests of the app manifests in the store that no app's directory is named by."""
    numbers = {number for _name, number, _directory in store.app_directories()}
    found = set()
    with contextlib.suppress(OSError), os.scandir(store.blobs) as entries:
        for entry in entries:
            digest = f"sha256:{entry.name}"
            with contextlib.suppress(ComposeAppsError, OSError):
                if is_digest(digest) and entry.name not in numbers and entry.is_file(follow_symlinks=False) \
                        and entry.stat().st_size <= MAX_MANIFEST and ARTIFACT_TYPE.encode() in store.read(digest):
                    found.add(digest)
    return found
