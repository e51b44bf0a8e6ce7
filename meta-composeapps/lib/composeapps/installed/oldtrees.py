# SPDX-License-Identifier: MIT
"""Taking over what an agent left that replaced an app's whole directory by a new tree.

Beside the app's directory NAME it kept, where I is the inode number of a tree::

    .bundle-NAME-I/      inode I: a tree that was being made; another inode: a tree that was replaced
    .bundle-NAME-I.json  of the tree I: "members", the names in its bundle; "kept", {place: inode} of the
                         directories that were to be moved on from it

A replaced tree may still have what a service or a user wrote. That is moved to where it is missing; what is
there twice stays where the services see it. A tree that a container has mounted is kept until that is gone.
"""

import contextlib
import json
import os
import stat

from composeapps import beneath
from composeapps.engine.look import Look
from composeapps.installed import mounts
from composeapps.installed.placed import Record

_MAX_RECORD = 64 * 1024 * 1024


def settle(placed, root, engine):
    """Take over what is there, if anything.

    Arguments:
        placed: the Placed.
        root: the Root of the compose root.
        engine: the Engine, or None when no container uses the trees.

    It can be repeated. Raises OSError, EngineError.
    """
    above = "/".join(placed.name.components[:-1])
    prefix = f".bundle-{placed.name.components[-1]}-"
    # Nobody makes such trees any more, so that it is enough to look for them once a command.
    known = engine.kept if isinstance(engine, Look) else {}
    if (root.path, above) not in known:
        known[root.path, above] = [name for name in root.names(above) if name.startswith(".bundle-")]
    found = [name for name in known[root.path, above] if name.startswith(prefix)
             and (name == f"{prefix}new" or name.removeprefix(prefix).removesuffix(".json").isdecimal())]
    if not found:
        return
    place = f"{above}/" if above else ""
    top = root.lstat(str(placed.name))
    if top is not None and placed.read() is None:
        members = _read(root, f"{place}{prefix}{top.st_ino}.json").get("members")
        if isinstance(members, list):
            root.make_directories(placed.private, 0o700)
            placed.write(root, Record({name: [] for name in members if isinstance(name, str)}))
    for name in found:
        if not name.endswith(".json") and _settle_tree(placed, root, place + name, engine):
            with root.parent(place + name) as (directory, last):
                beneath.remove_tree(directory, last)
    trees = [name for name in root.names(above) if name in found and not name.endswith(".json")]
    if not trees:
        for name in found:
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError), root.parent(place + name) as (directory, last):
                    os.unlink(last, dir_fd=directory)


def _settle_tree(placed, root, tree, engine):
    """Move on what a tree has of the user's; return whether it can go."""
    found = root.lstat(tree)
    if found is None or not stat.S_ISDIR(found.st_mode):
        return found is not None
    if tree.endswith(("-new", f"-{found.st_ino}")):
        return True
    # The tree has the name that the one in its place had before the exchange; its record has its own number.
    record = _read(root, f"{tree.rpartition('-')[0]}-{found.st_ino}.json")
    kept = record.get("kept")
    for place, inode in (kept if isinstance(kept, dict) else {}).items():
        if place != "." and isinstance(place, str):
            _move_directory(placed, root, tree, place, inode)
    members = record.get("members")
    _move_extras(root, tree, str(placed.name), set(members) if isinstance(members, list) else set())
    prefix = str(placed.root / tree)
    return not any(mounts.place_of(mount.get("Source") or "/", prefix) is not None
                   for container in (engine.containers() if engine is not None else ())
                   for mount in container.get("Mounts") or () if mount.get("Type") == "bind")


def _move_directory(placed, root, tree, place, inode):
    """Have a directory that was to stay the same one where it belongs."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), \
            root.parent(f"{tree}/{place}") as (source, old), root.parent(f"{placed.name}/{place}") as (target, new):
        if os.stat(old, dir_fd=source, follow_symlinks=False).st_ino != inode:
            return
        try:
            beneath.rename(source, old, target, new, beneath.NO_REPLACE)
        except FileExistsError:
            beneath.rename(source, old, target, new, beneath.EXCHANGE)
        os.fsync(source)
        os.fsync(target)


def _move_extras(root, tree, target, members, prefix=""):
    for entry in root.names(f"{tree}/{prefix}".rstrip("/")):
        name = f"{prefix}{entry}"
        status = root.lstat(f"{tree}/{name}")
        if status is None:
            continue
        there = root.lstat(f"{target}/{name}")
        if there is None and name not in members:
            with root.parent(f"{tree}/{name}") as (source, old), root.parent(f"{target}/{name}") as (directory, new):
                beneath.rename(source, old, directory, new, beneath.NO_REPLACE)
                os.fsync(directory)
        elif stat.S_ISDIR(status.st_mode) and (there is None or stat.S_ISDIR(there.st_mode)):
            if there is None:
                root.make_directory(f"{target}/{name}", stat.S_IMODE(status.st_mode))
            _move_extras(root, tree, target, members, f"{name}/")


def _read(root, path):
    try:
        value = json.loads(root.read(path, _MAX_RECORD))
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}
