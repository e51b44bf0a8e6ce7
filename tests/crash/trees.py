# SPDX-License-Identifier: MIT
"""A digest over all that a directory holds, but for times: what tells two mounted states apart."""

import hashlib
import os
import stat
from pathlib import Path


def digest(root):
    """Return the sha256 in hex over names, inodes, types, modes, owners, extended attributes, links and contents."""
    hasher = hashlib.sha256()
    _add(hasher, os.fspath(root), "")
    return hasher.hexdigest()


def _add(hasher, directory, prefix):
    for entry in sorted(os.scandir(directory), key=lambda each: each.name):
        name, info = prefix + entry.name, entry.stat(follow_symlinks=False)
        # By its inode fsck knows a layer that it has verified.
        hasher.update(repr((name, info.st_ino, info.st_mode, info.st_uid, info.st_gid, info.st_rdev)).encode())
        for attribute in sorted(os.listxattr(entry.path, follow_symlinks=False)):
            hasher.update(repr((attribute, os.getxattr(entry.path, attribute, follow_symlinks=False))).encode())
        if stat.S_ISLNK(info.st_mode):
            hasher.update(os.fsencode(os.readlink(entry.path)))
        elif stat.S_ISREG(info.st_mode):
            hasher.update(b"%d:" % info.st_size)
            with open(entry.path, "rb") as stream:
                while chunk := stream.read(1 << 20):
                    hasher.update(chunk)
        elif stat.S_ISDIR(info.st_mode):
            _add(hasher, entry.path, name + "/")
            hasher.update(b"/")


def sums(root):
    """Return {relative path: sha256 in hex} of the files below ``root``."""
    root = Path(root)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()}
