# SPDX-License-Identifier: MIT
"""Putting the files of a new bundle in the place of the old one's, under running containers.

The new tree is complete and durable before it takes the place of the old one, in one step. What the
old tree holds is not lost by that:

- A container that runs goes on seeing the directories that it has mounted, which are the old tree's.
  So the old tree is kept aside for as long as a container uses it in the run in which it began to.
- Files that were in the app's directory without being of the bundle, data that a service writes to
  ``./data`` for example, are in the new tree too.
- A directory that a running container may write to, and that holds such files or is no other in the new
  bundle, stays the very same directory: only the bundle's files in it are replaced, each in one step.

Names beside the app's directory NAME, where I is the inode number of a tree::

    .bundle-NAME-I/      inode I: a new tree that is being made; another inode: an old tree
    .bundle-NAME-I.json  what is known of the tree I: "members", the files of its bundle; "users",
                         [container, start] of those that had it mounted when it was replaced; "kept",
                         {directory: inode} of those that stay; "obsolete", files that are to go

A power cut leaves, before the exchange, an unfinished tree, which is removed by the next run; after it,
an old tree whose files are not all carried over, which the next run goes on with.
"""

import json
import os
import re
import shutil
import stat
from pathlib import Path, PurePosixPath

from composeapps import durable
from composeapps.app import bundle as bundles
from composeapps.oci.digests import stream_sha256

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def place(app, store, target, engine=None):
    """Unpack an app's bundle in the place of what is there.

    Arguments:
        app: the App.
        store: the Store that has its bundle.
        target: the app's directory.
        engine: the Engine, by which the containers are found that use the old tree; None when there are none.

    Raises CorruptError, NotFoundError, EngineError; OSError when the file system refuses.
    """
    target = Path(target)
    durable.make_directories(target.parent)
    what = f"the bundle of app {app.ref}"
    settle(target, engine)
    new = _make_tree(target)
    try:
        with store.open(app.bundle.digest, app.bundle.size) as packed:
            bundles.extract(packed, new, what)
            packed.seek(0)
            members = _names(packed, what)
        _write_record(target, _inode(new), {"members": members})
        if target.is_symlink() or not target.is_dir():
            target.unlink(missing_ok=True)
            os.rename(new, target)
            durable.fsync_directory(target.parent)
        else:
            _replace(new, target, members, engine)
    finally:
        # After the exchange this has another inode, and is left alone.
        _remove_unfinished(target, new)
    settle(target, engine)


def _replace(new, target, members, engine):
    record = {**_record(target, _inode(target)), **_usage(target, new, engine)}
    if "." in record["kept"]:
        obsolete = sorted(set(record.get("members") or ()) - set(members))
        _write_record(target, _inode(target), {"members": members, "obsolete": obsolete})
        _move_into(new, target)
    else:
        _write_record(target, _inode(target), record)
        _exchange(new, target)
        durable.fsync_directory(target.parent)


def _names(packed, what):
    """Return the names of all that a bundle holds, with the directories that it does not mention."""
    names = {info.name for info, _content in bundles.members(packed, what)}
    return sorted(names | {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."})


def settle(target, engine=None):
    """Finish what an interrupted run left beside an app's directory, and remove old trees that nobody uses.

    Arguments and errors are those of ``place``.
    """
    target = Path(target)
    for tree in _trees(target):
        if _remove_unfinished(target, tree):
            continue
        record = _record(target, _inode(tree))
        used = engine is not None and any(_still_runs(engine, *user) for user in record.get("users") or ())
        _carry_over(tree, target, record, used)
        if not used:
            inode = _inode(tree)
            shutil.rmtree(tree)
            _record_path(target, inode).unlink(missing_ok=True)
    record = _record(target, _inode(target)) if target.is_dir() else {}
    if record.pop("obsolete", None) is not None:
        _remove_members(target, _record(target, _inode(target))["obsolete"])
        _write_record(target, _inode(target), record)


def remove_others(target):
    """Remove all that is beside an app's directory, when that is gone or about to go; raises OSError."""
    target = Path(target)
    prefix = f".bundle-{target.name}-"
    for path in target.parent.glob(f"{prefix}*"):
        name = path.name.removeprefix(prefix)
        if name == "new" or name.removesuffix(".json").isdecimal():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _make_tree(target):
    first = target.with_name(f".bundle-{target.name}-new")
    shutil.rmtree(first, ignore_errors=True)
    first.mkdir(mode=0o755)
    tree = target.with_name(f".bundle-{target.name}-{_inode(first)}")
    os.rename(first, tree)
    return tree


def _trees(target):
    """Return the trees beside an app's directory."""
    prefix = f".bundle-{target.name}-"
    return sorted(path for path in target.parent.glob(f"{prefix}*")
                  if path.name.removeprefix(prefix).isdecimal() and path.is_dir())


def _inode(path):
    return os.stat(path, follow_symlinks=False).st_ino


def _remove_unfinished(target, tree):
    if not tree.is_dir() or tree.name != f".bundle-{target.name}-{_inode(tree)}":
        return False
    inode = _inode(tree)
    shutil.rmtree(tree)
    _record_path(target, inode).unlink(missing_ok=True)
    return True


def _record_path(target, inode):
    return target.with_name(f".bundle-{target.name}-{inode}.json")


def _record(target, inode):
    try:
        value = json.loads(_record_path(target, inode).read_bytes())
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        return {}


def _write_record(target, inode, record):
    durable.write_file(_record_path(target, inode), json.dumps(record).encode() + b"\n")


def _usage(target, new, engine):
    """Return {"users", "kept"} of the tree at ``target``, that ``new`` is to replace."""
    mounted, written = [], set()
    for container in _running(engine):
        for mount in container.get("Mounts") or ():
            place = _place(mount.get("Source"), target) if mount.get("Type") == "bind" else None
            # A file that is mounted stays with its container, whatever becomes of its name.
            if place is not None and (target / place).is_dir():
                mounted.append((place, [container["Id"], container["State"].get("StartedAt")]))
                if mount.get("RW"):
                    written.add(place)
    if _has_mounts(target):
        # What is mounted below would go with the old tree.
        kept = {".": _inode(target)}
    else:
        topmost = [place for place in written if not any(_below(place, each) for each in written if each != place)]
        members = _record(target, _inode(target)).get("members")
        kept = {place: _inode(target / place) for place in sorted(topmost)
                if _extras(target, place, members) or _same(target / place, new / place)}
    # One that has run since before an earlier tree was replaced has that one mounted.
    earlier = [user for tree in _trees(target) for user in _record(target, _inode(tree)).get("users") or ()]
    users = [user for place, user in mounted
             if user not in earlier and not any(place == each or _below(place, each) for each in kept)]
    return {"users": users, "kept": kept}


def _has_mounts(directory):
    """Tell whether a file system is mounted somewhere below a directory."""
    # Format: proc_pid_mountinfo(5); blanks and the like in the path are written as octal numbers.
    prefix = f"{os.path.realpath(directory)}/".encode()
    with open("/proc/self/mountinfo", "rb") as mounts:
        return any(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
                   .startswith(prefix) for line in mounts)


def _running(engine):
    for listed in engine.containers() if engine is not None else ():
        container = engine.container(listed["Id"]) if listed.get("State") in ("running", "paused") else None
        if container is not None and container["State"].get("Running"):
            yield container


def _still_runs(engine, identifier, started):
    container = engine.container(identifier)
    return container is not None and bool(container["State"].get("Running")) \
        and container["State"].get("StartedAt") == started


def _place(source, target):
    """Return a mount's source as a path below ``target``, "." for all of it, None when it is elsewhere."""
    path = os.path.normpath(str(source or "/"))
    if path == str(target) or str(target).startswith(f"{path.rstrip('/')}/"):
        return "."
    return os.path.relpath(path, target) if path.startswith(f"{target}/") else None


def _below(place, other):
    return other == "." or place.startswith(f"{other}/")


def _walk(top):
    """Yield (path below ``top``, os.DirEntry) of everything in a directory, a directory before its content."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        for entry in sorted(os.scandir(os.path.join(top, prefix)), key=lambda each: each.name):
            name = f"{prefix}{entry.name}"
            yield name, entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{name}/")


def _extras(tree, place, members):
    """Tell whether a directory of a tree holds something that is not of the tree's bundle.

    Of a tree whose ``members`` nobody noted, everything counts.
    """
    members = set(members or ())
    prefix = "" if place == "." else f"{place}/"
    return any(prefix + name not in members for name, _entry in _walk(tree / place))


def _same(old, new):
    """Tell whether two directories have the same files with the same content."""
    if not new.is_dir():
        return False

    def described(top):
        for name, entry in _walk(top):
            status = entry.stat(follow_symlinks=False)
            content = os.readlink(entry.path) if entry.is_symlink() else None
            if entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as stream:
                    content = stream_sha256(stream)
            yield name, (status.st_mode, status.st_uid, status.st_gid, content)

    return dict(described(old)) == dict(described(new))


def _carry_over(old, target, record, used):
    """Bring what an old tree has beyond its bundle into the new one; what was carried over before stays."""
    members, new_members = record.get("members"), _record(target, _inode(target)).get("members") or []
    kept = {place: inode for place, inode in (record.get("kept") or {}).items() if place != "."}
    for place, inode in kept.items():
        _keep_directory(old, target, place, inode, members, new_members)
    touched = set()
    _carry_extras(old, target, "", None if members is None else set(members), kept, used, touched)
    for directory in sorted(touched):
        durable.fsync_directory(directory)


def _carry_extras(old, target, prefix, members, kept, used, touched):
    for entry in sorted(os.scandir(old / prefix), key=lambda each: each.name):
        name = f"{prefix}{entry.name}"
        if name in kept:
            continue
        there, is_directory = target / name, entry.is_dir(follow_symlinks=False)
        extra = (members is None or name not in members) and not os.path.lexists(there)
        if extra and _parents(old, target, name, touched):
            touched.add(there.parent)
            if not used:
                os.rename(entry.path, there)
                continue
            # The old name stays for those that see the old tree only.
            if is_directory:
                there.mkdir()
                _copy_mode(entry.path, there)
                touched.add(there)
            else:
                os.link(entry.path, there, follow_symlinks=False)
        if is_directory:
            _carry_extras(old, target, f"{name}/", members, kept, used, touched)


def _parents(old, target, name, touched):
    """Make the directories that lead to a name in the new tree; return False when a file is in the way."""
    parts = name.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        path = target.joinpath(*parts[:count])
        if not os.path.lexists(path):
            path.mkdir()
            _copy_mode(old.joinpath(*parts[:count]), path)
            touched.add(path.parent)
        elif path.is_symlink() or not path.is_dir():
            return False
    return True


def _keep_directory(old, target, place, inode, members, new_members):
    """Have the directory ``place`` of the old tree, with the inode it had, in the new tree."""
    ours, theirs = old / place, target / place
    if ours.is_dir() and not ours.is_symlink() and _inode(ours) == inode:
        if os.path.lexists(theirs):
            _exchange(ours, theirs)
        else:
            if not _parents(old, target, place, set()):
                return
            os.rename(ours, theirs)
        durable.fsync_directory(theirs.parent)
        durable.fsync_directory(ours.parent)
    # From here on ``ours`` is what the new bundle has there.
    if not os.path.lexists(theirs) or _inode(theirs) != inode:
        return
    if ours.is_dir():
        _move_into(ours, theirs)
    _remove_members(target, [name for name in sorted(set(members or ()) - set(new_members)) if _below(name, place)])


def _move_into(new, target):
    """Move all that is in ``new`` into the directory ``target``, each file in one step."""
    touched = {target}
    _copy_mode(new, target)
    for name, entry in _walk(new):
        there = target / name
        touched.add(there.parent)
        if entry.is_dir(follow_symlinks=False):
            if os.path.lexists(there) and (there.is_symlink() or not there.is_dir()):
                there.unlink()
            if not there.is_dir():
                there.mkdir()
            _copy_mode(entry.path, there)
        else:
            if there.is_dir() and not there.is_symlink():
                shutil.rmtree(there)
            os.rename(entry.path, there)
    for directory in sorted(touched):
        durable.fsync_directory(directory)


def _remove_members(target, names):
    """Remove what only the old bundle had, and directories when nothing is left in them."""
    touched = set()
    for name in sorted(names, reverse=True):
        there = target / name
        if there.is_dir() and not there.is_symlink():
            if any(there.iterdir()):
                continue
            there.rmdir()
        elif os.path.lexists(there):
            there.unlink()
        else:
            continue
        touched.add(there.parent)
    for directory in sorted(touched):
        if directory.is_dir():
            durable.fsync_directory(directory)


def _copy_mode(source, target):
    status = os.stat(source, follow_symlinks=False)
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))


def _exchange(one, other):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
