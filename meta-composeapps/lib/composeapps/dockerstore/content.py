# SPDX-License-Identifier: MIT
"""The files in layers: state A, by their attributes (stat tier) and by the layer's digest (content tier).

Only layers that the ledger does not have are looked at, the latest first, since a power cut hurts
what was written last. What is damaged is healed in place from a restorable store, else the layer is
marked lost.
"""

import contextlib
import errno
import os
import stat

from composeapps.dockerstore import layercheck, layout, ledger
from composeapps.dockerstore.report import reason


class Expired(Exception):
    """The time for reading is over."""


def problem(run, layer, cache=None, tick=None):
    """Return None when a layer's files are what its digest says, else a phrase; reads all of them.

    Arguments:
        cache: another directory of overlay2 in which to look for them.
        tick: called while reading; what it raises ends the work.
    """
    return _guarded(_paths, _content, run, layer, cache, tick)


def quick_problem(run, layer, tick=None):
    """Return None when a layer's files have the right names, sizes and attributes, else a phrase."""
    return _guarded(_paths, _attributes, run, layer, None, tick)


def _paths(run, layer, cache):
    return (run.root.absolute(run.layer_path(layer, "tar-split.json.gz")),
            run.root.absolute(f"{layout.OVERLAY}/{cache or layer.cache}/diff"))


def _content(run, layer, tar_split, diff, tick):
    return layercheck.content_problem(tar_split, diff, f"sha256:{layer.diff}", tick)


def _attributes(run, layer, tar_split, diff, tick):
    # A layer that is sound may show an uncertain fault too.
    for fault in layercheck.stat_problems(tar_split, diff, 20, run.id_offset, tick):
        if fault.certain:
            return str(fault)
    return None


def _guarded(paths, check, run, layer, cache, tick):
    try:
        return check(run, layer, *paths(run, layer, cache), tick)
    except Expired:
        raise
    # No content of a store may end the run: whatever the readers stumble over counts as damage.
    except Exception as err:
        return reason(err)


def check(run):
    """Check the files of the layers, heal them where need be, and count them in the report."""
    todo = []
    for layer in run.layers.values():
        if layer.lost is not None or layer.cached is None:
            continue
        if not run.full and not layer.suspect and run.ledger.get((layer.chain, layer.cache)) == layer.inode:
            run.report.known += 1
        else:
            todo.append(layer)
    # Those that the background check found come first.
    todo.sort(key=lambda layer: ((layer.chain, layer.cache) not in run.pending, -layer.time))
    broken, rest = [], []
    for layer in todo:
        why = _known_problem(run, layer) or quick_problem(run, layer)
        if why:
            broken.append((layer, why))
        else:
            rest.append(layer)
    for layer, why in broken:
        _heal(run, layer, why)
    for position, layer in enumerate(rest):
        urgent = layer.suspect or (layer.chain, layer.cache) in run.pending
        try:
            why = problem(run, layer, tick=None if urgent else lambda _count: _tick(run))
        except Expired:
            run.report.unverified = [each.chain for each in rest[position:]]
            return
        if len(rest) > 20 and position % 20 == 19:
            run.notify(f"read {position + 1} of {len(rest)} layers")
        if why:
            _heal(run, layer, why)
        else:
            _note(run, layer)


def _tick(run):
    if run.expired():
        raise Expired


def _known_problem(run, layer):
    if "tar-split.json.gz" in layer.faults:
        return f"tar-split.json.gz {layer.faults['tar-split.json.gz']}"
    if layer.inode == 0:
        # In a dry run: the directory would have been made just now.
        return "its files are missing"
    return None


def _note(run, layer):
    run.report.verified += 1
    run.ledger[layer.chain, layer.cache] = layer.inode
    run.pending.pop((layer.chain, layer.cache), None)
    _recount(run, layer)


def _heal(run, layer, why):
    state = "B" if "tar-split.json.gz" in layer.faults else "A"
    text = f"has damaged files: {why}" if state == "A" else f"has metadata that cannot be used: {why}"
    run.ledger.pop((layer.chain, layer.cache), None)
    _distrust(run, layer)
    if not run.blobs.has_layer(layer.diff):
        layer.state, layer.lost = state, text
        return
    finding = run.find(state, layer, text, "healed it from the store")
    if run.actions.dry_run:
        return
    finding.done = False
    try:
        stream = run.blobs.open_layer(layer.diff)
        if stream is None:
            raise OSError("the store's blob cannot be read")
        from composeapps.dockerstore import heal

        tar_split = run.layer_path(layer, "tar-split.json.gz")
        found = run.root.lstat(tar_split)
        if found is not None and not stat.S_ISREG(found.st_mode):
            run.actions.set_aside(tar_split)
        run.actions.changed = True
        with stream:
            heal.heal_layer(stream, f"sha256:{layer.diff}", *_paths(run, layer, None), run.id_offset)
    except Exception as err:
        finding.repair = f"healing it from the store failed: {reason(err)}"
        # A full disk is no reason to take away what is built on the layer: the next run tries again.
        if getattr(err.__cause__, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            layer.state, layer.lost = state, text
        return
    finding.done = True
    layer.faults.pop("tar-split.json.gz", None)
    with contextlib.suppress(OSError):
        layer.inode = os.stat(run.root.absolute(f"{layout.OVERLAY}/{layer.cache}/diff"), follow_symlinks=False).st_ino
    _note(run, layer)


def _distrust(run, layer):
    """Take a layer out of the ledger on the disk: a repair that is cut off must not leave it trusted."""
    known = ledger.load(run.root)
    if known.pop((layer.chain, layer.cache), None) is not None and not run.actions.dry_run:
        ledger.save(run.actions, known)


def _recount(run, layer):
    """Write a layer's size again when it is unreadable; dockerd only shows it."""
    if "size" not in layer.faults:
        return
    finding = run.find("B", layer, f"has metadata that cannot be used: size {layer.faults['size']}", "counted it again")
    run.apply(finding, lambda: run.actions.write(run.layer_path(layer, "size"), str(_size(run, layer)).encode()))


def _size(run, layer):
    total, seen = 0, set()
    with run.root.directory(f"{layout.OVERLAY}/{layer.cache}/diff") as top:
        for _path, _names, files, directory in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            for name in files:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if found.st_nlink > 1:
                    if found.st_ino in seen:
                        continue
                    seen.add(found.st_ino)
                total += found.st_size
    return total
