# SPDX-License-Identifier: MIT
"""Reading overlay2: a directory for each layer and container, and their short names in ``l/``."""

import base64
import hashlib
import os
import stat

from composeapps.beneath import DIRECTORY, read_at
from composeapps.dockerstore import layout


class Cache:
    """A directory of overlay2.

    ``link`` is its short name, None when unreadable; ``lower`` the content of its file of lower
    directories, None when there is none, "" for an unreadable one; ``inode`` that of ``diff``, None
    when that is no directory; ``work`` tells of the work directory; ``target`` is where the short
    name's symbolic link leads, None when it is no such link; ``stray`` lists temporary files.
    """

    __slots__ = ("name", "link", "lower", "inode", "work", "target", "stray")

    def __init__(self, name):
        self.name = name
        self.link = self.lower = self.inode = self.target = None
        self.work, self.stray = False, ()

    @property
    def wanted_target(self):
        """Where the short name has to lead."""
        return f"../{self.name}/diff"

    def lowers(self):
        """Return what a child's file of lower directories has to say; the link is known."""
        return f"l/{self.link}" if not self.lower else f"l/{self.link}:{self.lower}"


def read(root, name):
    """Return the Cache of a directory, or None when there is none of this name."""
    try:
        directory = os.open(name, DIRECTORY, dir_fd=root.keep(layout.OVERLAY))
    except OSError:
        return None
    cache = Cache(name)
    try:
        cache.stray = [name for name in os.listdir(directory) if name.startswith((".tmp-", layout.HEALING))]
        cache.link = _text(directory, "link", layout.LINK)
        try:
            cache.lower = read_at(directory, "lower", layout.MAX_LOWER).decode("ascii", "replace")
        except FileNotFoundError:
            cache.lower = None
        except OSError:
            cache.lower = ""
        try:
            found = os.stat("diff", dir_fd=directory, follow_symlinks=False)
            cache.inode = found.st_ino if stat.S_ISDIR(found.st_mode) else None
        except OSError:
            cache.inode = None
        try:
            cache.work = stat.S_ISDIR(os.stat("work", dir_fd=directory, follow_symlinks=False).st_mode)
        except OSError:
            cache.work = False
    finally:
        os.close(directory)
    if cache.link is not None:
        try:
            cache.target = os.readlink(cache.link, dir_fd=root.keep(layout.LINKS))
        except OSError:
            cache.target = None
    return cache


def _text(directory, name, pattern):
    try:
        text = read_at(directory, name, layout.MAX_FIELD).decode("ascii", "replace")
    except OSError:
        return None
    return text if pattern.match(text) else None


def links(root):
    """Return {short name: target} of all symbolic links in ``l/``; None for what is no such link."""
    found = {}
    try:
        home = root.keep(layout.LINKS)
    except OSError:
        return found
    for name in os.listdir(home):
        try:
            found[name] = os.readlink(name, dir_fd=home)
        except OSError:
            found[name] = None
    return found


def names_of(cache_name, all_links):
    """Return the short names in ``all_links`` that lead to a directory's files, sorted."""
    return sorted(name for name, target in all_links.items()
                  if target == f"../{cache_name}/diff" and layout.LINK.match(name))


def first_lower(cache, all_links):
    """Return the directory that a Cache's uppermost lower directory belongs to, or None."""
    if not cache.lower:
        return None
    target = all_links.get(cache.lower.split(":")[0].removeprefix("l/"))
    parts = (target or "").split("/")
    return parts[1] if len(parts) == 3 and parts[0] == ".." and parts[2] == "diff" else None


def new_link(cache_name, all_links):
    """Return a short name that is not in use: 26 characters of base 32, as dockerd makes them.

    The same for the same directory, so that a repair that is repeated leaves the same.
    """
    seed = cache_name
    while True:
        seed = hashlib.sha256(seed.encode()).hexdigest()
        link = base64.b32encode(bytes.fromhex(seed)).decode()[:26]
        if link not in all_links:
            return link
