# SPDX-License-Identifier: MIT
"""Which layers were read whole and found right, and which the background check found wrong.

Reading every layer at each boot would take minutes. A layer that was read and then synced cannot
be hurt by a later power cut, because dockerd never writes to it again: so it is read once, and its
chain id, its cache id and the inode of its files' directory go into the ledger. A ledger with a wrong
sum, of another owner or that others may write to counts as empty, and everything is read again.

Format: one line "composeapps-fsck <what> 1 <SHA-256 of the rest>", then one line an entry.
"""

import hashlib
import os
import stat

from composeapps.dockerstore import layout

MAX_SIZE = 4 * 1024 * 1024


def load(root):
    """Return {(chain id, cache id): inode} of the layers that were verified."""
    entries = {}
    for line in _lines(root, layout.LEDGER, "ledger"):
        words = line.split(" ")
        if len(words) != 3 or not layout.HEX.match(words[0]) or not layout.CACHE_ID.match(words[1]):
            return {}
        if not words[2].isdigit():
            return {}
        entries[words[0], words[1]] = int(words[2])
    return entries


def save(actions, entries):
    """Replace the ledger, durably; what it says must be on the disk already."""
    lines = [f"{chain} {cache} {inode}" for (chain, cache), inode in sorted(entries.items())]
    _write(actions, layout.LEDGER, "ledger", lines)


def load_pending(root):
    """Return {(chain id, cache id): reason} of the layers that a background check found damaged."""
    entries = {}
    for line in _lines(root, layout.PENDING, "pending"):
        words = line.split(" ", 2)
        if len(words) == 3 and layout.HEX.match(words[0]) and layout.CACHE_ID.match(words[1]):
            entries[words[0], words[1]] = words[2]
    return entries


def save_pending(actions, entries):
    """Replace the list of damaged layers; an empty one is removed."""
    if not entries:
        if actions.root.lstat(layout.PENDING) is not None:
            actions.delete(layout.PENDING)
        return
    lines = [f"{chain} {cache} {' '.join(reason.split())}" for (chain, cache), reason in sorted(entries.items())]
    _write(actions, layout.PENDING, "pending", lines)


def _lines(root, path, what):
    try:
        found = root.lstat(path)
        if (found is None or not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid()
                or found.st_mode & 0o022 or found.st_nlink != 1):
            return []
        head, _, body = root.read(path, MAX_SIZE).partition(b"\n")
    except OSError:
        return []
    if head != _head(what, body):
        return []
    return body.decode("utf-8", "replace").splitlines()


def _head(what, body):
    return f"composeapps-fsck {what} 1 {hashlib.sha256(body).hexdigest()}".encode()


def _write(actions, path, what, lines):
    body = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    actions.mkdir(layout.OWN, 0o700)
    changed = actions.changed
    actions.write(path, _head(what, body) + b"\n" + body, 0o600)
    actions.changed = changed
