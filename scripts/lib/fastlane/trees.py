# SPDX-License-Identifier: MIT
"""Directory trees: copied by hard links where nobody writes, laid over each other, published."""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from fastlane.errors import BuildError


def link_tree(source, target, private=()):
    """Make ``target`` a copy of ``source`` that shares its files by hard links, where both are on one file system.

    ``private`` names top-level directories whose files are really copied, because what runs
    on the copy may write into them. Owners, modes and times are kept.
    """
    source, target = Path(source), Path(target)
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            destination = target / entry.name
            if entry.is_symlink() or not entry.is_dir(follow_symlinks=False):
                shutil.copy2(entry.path, destination, follow_symlinks=False)
            elif entry.name in private:
                _copy(entry.path, destination, link=False)
            else:
                _copy(entry.path, destination, link=True)
    _copy_attributes(source, target)


def _copy(source, target, link):
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            destination = os.path.join(target, entry.name)
            if entry.is_dir(follow_symlinks=False):
                _copy(entry.path, destination, link)
            elif link:
                _link(entry.path, destination)
            elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                _copy_file(entry.path, destination)
    _copy_attributes(source, target)


def _link(source, target):
    """Make ``target`` the same file as ``source``, or a copy of it where the cache is on a file system of its own."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
        _copy_file(source, target)


def _copy_file(source, target):
    """Copy what is no directory, with its owner, mode, times and extended attributes."""
    info = os.lstat(source)
    if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
        shutil.copyfile(source, target, follow_symlinks=False)
    else:
        os.mknod(target, info.st_mode, info.st_rdev)
    # The owner first: its change takes the set-user-ID bit and capabilities away.
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)


def _copy_attributes(source, target):
    info = os.stat(source)
    os.chown(target, info.st_uid, info.st_gid)
    shutil.copystat(source, target)


def fingerprint(tree):
    """Return ``{path: (size, mtime in ns)}`` of the regular files of a tree, to notice a change in place."""
    found = {}
    for directory, _, names in os.walk(tree):
        for name in names:
            info = os.lstat(os.path.join(directory, name))
            if stat.S_ISREG(info.st_mode):
                found[os.path.relpath(os.path.join(directory, name), tree)] = (info.st_size, info.st_mtime_ns)
    return found


def lay_over(source, paths, root):
    """Put ``paths`` (relative to ``source``) into ``root``; a file that is there is replaced, not written to.

    Owners and modes are those that do_install gave; a directory that is there keeps its own.
    Raises BuildError when a directory and a file collide.
    """
    for path in sorted(paths):
        origin, target = os.path.join(source, path), os.path.join(root, path)
        info = os.lstat(origin)
        _make_parents(source, os.path.dirname(path), root)
        if stat.S_ISDIR(info.st_mode):
            _make_directory(origin, target)
            continue
        if os.path.isdir(target) and not os.path.islink(target):
            raise BuildError(f"/{path} is a file in a package and a directory in the image: rename one of them")
        temporary = f"{target}.fastlane-new"
        with_link = stat.S_ISLNK(info.st_mode)
        if with_link:
            _unlink(temporary)
            os.symlink(os.readlink(origin), temporary)
        else:
            shutil.copy2(origin, temporary)
        os.chown(temporary, info.st_uid, info.st_gid, follow_symlinks=False)
        if not with_link:
            os.chmod(temporary, stat.S_IMODE(info.st_mode))
        os.replace(temporary, target)


def _make_parents(source, directory, root):
    done = ""
    for part in Path(directory).parts:
        done = os.path.join(done, part)
        _make_directory(os.path.join(source, done), os.path.join(root, done))


def _make_directory(origin, target):
    if os.path.isdir(target):
        return
    if os.path.lexists(target):
        raise BuildError(f"{target} is a directory in a package and a file in the image: rename one of them")
    info = os.stat(origin)
    os.mkdir(target)
    os.chown(target, info.st_uid, info.st_gid)
    os.chmod(target, stat.S_IMODE(info.st_mode))


def write_file(root, path, text, mode=0o644):
    """Replace a file below ``root`` by one with ``text``, owned by root."""
    target = Path(root, path.lstrip("/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".fastlane-new")
    _unlink(temporary)
    temporary.write_text(text)
    os.chmod(temporary, mode)
    os.replace(temporary, target)


def _unlink(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path):
    """Remove a tree, whatever the modes of its directories; nothing there is fine."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)


def publish_deploy(source, target, state):
    """Make what do_deploy left in ``source`` part of the deploy directory ``target``.

    Files that the same recipe published before and no longer has are removed; ``state`` is the
    file in which the list of them is kept. Files are hard-linked where both are on one file system.
    """
    manifest = Path(state)
    if manifest.exists():
        # Listed directories first, so backwards a directory comes after what was in it.
        for name in reversed(manifest.read_text().splitlines()):
            _forget(os.path.join(target, name))
    names = []
    for directory, subdirectories, files in os.walk(source):
        inside = os.path.relpath(directory, source)
        names += [os.path.normpath(os.path.join(inside, name)) for name in subdirectories + files]
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text("".join(f"{name}\n" for name in names))
    os.makedirs(target, exist_ok=True)
    for name in names:
        origin, destination = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(origin) and not os.path.islink(origin):
            os.makedirs(destination, exist_ok=True)
        else:
            _unlink(destination)
            _link(origin, destination)


def _forget(path):
    """Remove a file, or a directory that nothing else has put something into."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    except OSError as err:
        if err.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise
