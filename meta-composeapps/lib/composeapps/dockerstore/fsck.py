# SPDX-License-Identifier: MIT
"""A run of fsck over a data root: databases, structure, files, then what has to go, then what was left over.

Each part first repairs what it can and marks the rest as lost; what was lost is taken away
after all was looked at. At the end everything is synced, and only then do the verified layers go
into the ledger.
"""

import errno
import os
import stat
import time

from composeapps import durable
from composeapps.beneath import Root
from composeapps.dockerstore import layers, layout, ledger, liveness
from composeapps.dockerstore.actions import Actions
from composeapps.dockerstore.blobs import Blobs
from composeapps.dockerstore.context import Run
from composeapps.dockerstore.report import Report, reason
from composeapps.errors import StorageError

# Seconds between two writings of the ledger by a background check.
SAVE_EVERY = 30


def run(data_root, store=None, dry_run=False, time_limit=None, full=False, background=False, notify=lambda text: None):
    """Check a data root and repair it.

    Arguments:
        data_root: dockerd's data directory; one that is missing is clean.
        store: directory of a restorable store, or an iterable of them, the preferred one first.
        dry_run: change nothing.
        time_limit: seconds for reading layers that were not read before; what is left is in the
            report's ``unverified``. Layers known to be damaged are healed whatever it takes.
        full: read all layers, those of the ledger too.
        background: read layers while dockerd lives and repair nothing: what is damaged is noted for
            the next run.
        notify: called with a line of text now and then.

    Returns a Report. Raises LockedError, liveness.BusyError when dockerd or a container uses the
    store, StorageError for a data root that cannot be worked on.
    """
    started = time.monotonic()
    stores = [store] if isinstance(store, (str, os.PathLike)) else store or ()
    report = Report(os.path.realpath(data_root), dry_run, background)
    try:
        root = Root(data_root)
    except FileNotFoundError:
        report.note = "there is no data root, so nothing to check"
        return report
    except OSError as err:
        raise StorageError(f"the data root {data_root} cannot be opened: {reason(err)}") from None
    try:
        with liveness.exclusive(root, background):
            one = Run(root, Actions(root, dry_run), report, Blobs(stores), time_limit, full, notify)
            try:
                (_background if background else _check)(one)
            except OSError as err:
                where = f" ({layout.shown(str(err.filename))})" if err.filename else ""
                raise StorageError(f"checking {root.path} failed: {reason(err)}{where}") from None
    finally:
        root.close()
    report.seconds = time.monotonic() - started
    return report


def _check(one):
    from composeapps.dockerstore import chain, closure, containers, content, databases, images, leaks

    _check_directories(one)
    databases.check(one)
    one.ledger, one.pending = ledger.load(one.root), ledger.load_pending(one.root)
    before = dict(one.ledger), dict(one.pending)
    one.images = images.read_all(one.root)
    one.containers, one.mounts = containers.read_containers(one.root), containers.read_mounts(one.root)
    one.layers = layers.read_all(one.root)
    images.restore(one)
    chain.check(one)
    content.check(one)
    chain.lose_descendants(one)
    images.check_layers(one)
    containers.check(one)
    images.check_tags(one)
    closure.remove(one)
    images.check_memory(one)
    leaks.check(one)
    report = one.report
    report.layers, report.images, report.containers = len(one.layers), len(one.images), len(one.containers)
    _finish(one, before)


def _finish(one, before):
    """Make all durable, then write the ledger."""
    actions = one.actions
    alive = {(layer.chain, layer.cache) for layer in one.layers.values() if layer.lost is None}
    known = {key: inode for key, inode in one.ledger.items() if key in alive}
    pending = {key: why for key, why in one.pending.items() if key in alive}
    if actions.lost:
        one.report.lost = os.path.join(one.root.path, actions.lost)
    if actions.dry_run:
        return
    if actions.changed or known != before[0]:
        actions.sync()
    if known != before[0]:
        ledger.save(actions, known)
    if pending != before[1]:
        ledger.save_pending(actions, pending)
    actions.trim()
    if one.report.findings:
        import json

        data = json.dumps(one.report.to_json(), indent=1).encode() + b"\n"
        actions.mkdir(layout.OWN, 0o700)
        actions.write(layout.REPORT, data, 0o600)


def _check_directories(one):
    """See to it that dockerd's directories are directories.

    Raises StorageError for a symbolic link in place of one: what lies behind it is not checked, so
    nothing here may be called whole or damaged.
    """
    for path in layout.DIRECTORIES:
        try:
            found = one.root.lstat(path)
        except NotADirectoryError:
            continue
        except OSError as err:
            if err.errno != errno.ELOOP:
                raise
            continue
        if found is None:
            continue
        if stat.S_ISLNK(found.st_mode):
            raise StorageError(f"{os.path.join(one.root.path, path)} is a symbolic link, and fsck checks nothing "
                               "outside the data root: mount that directory there instead")
        if not stat.S_ISDIR(found.st_mode):
            finding = one.find("O", path, "is not a directory", "set it aside; dockerd makes it anew")
            one.apply(finding, lambda path=path: one.actions.set_aside(path))
    # Docker 29 takes another image store when overlay2 is missing or empty; links need their directory.
    if one.root.is_directory(layout.LAYERS) or one.root.is_directory(layout.OVERLAY):
        for path, mode in ((layout.OVERLAY, 0o710), (layout.LINKS, 0o700)):
            if not one.root.is_directory(path):
                finding = one.find("C", path, "is missing", "made it anew")
                one.apply(finding, lambda path=path, mode=mode: one.actions.mkdir(path, mode, one.id_offset))
    one.root.forget()


def _background(one):
    """Read the layers that the ledger does not have; dockerd may live, so nothing of its own is changed."""
    from composeapps.dockerstore import content, overlay

    one.ledger, one.pending = ledger.load(one.root), ledger.load_pending(one.root)
    one.layers = layers.read_all(one.root)
    saved = time.monotonic()
    for layer in sorted(one.layers.values(), key=lambda each: -each.time):
        one.report.layers += 1
        if layer.faults or not layer.cache:
            # Structure is the next boot's business; dockerd may be at work on it.
            continue
        key = layer.chain, layer.cache
        cache = overlay.read(one.root, layer.cache)
        if not one.full and cache is not None and one.ledger.get(key) == cache.inode is not None:
            one.report.known += 1
            continue
        if one.expired():
            one.report.unverified.append(layer.chain)
            continue
        why = content.quick_problem(one, layer) or content.problem(one, layer)
        if why is None and cache is not None and cache.inode is not None:
            one.report.verified += 1
            one.ledger[key] = cache.inode
            one.pending.pop(key, None)
        elif _same(one, layer):
            finding = one.find("A", layer, f"has damaged files: {why}", "the next boot repairs it")
            finding.done = None if one.actions.dry_run else False
            one.ledger.pop(key, None)
            one.pending[key] = why or "its directory is missing"
        # The service may be stopped at any moment; what was read so far should count.
        if time.monotonic() - saved > SAVE_EVERY:
            _save(one)
            saved = time.monotonic()
    _save(one)


def _save(one):
    alive = {(layer.chain, layer.cache) for layer in layers.read_all(one.root).values()}
    known = {key: inode for key, inode in one.ledger.items() if key in alive}
    pending = {key: why for key, why in one.pending.items() if key in alive}
    if one.actions.dry_run:
        return
    if known != ledger.load(one.root):
        durable.sync_filesystem(one.root.path)
        ledger.save(one.actions, known)
    if pending != ledger.load_pending(one.root):
        ledger.save_pending(one.actions, pending)


def _same(one, layer):
    """Tell whether dockerd still has the layer; it may have removed it while it was read."""
    again = layers.read_all(one.root).get(layer.chain)
    return again is not None and again.cache == layer.cache
