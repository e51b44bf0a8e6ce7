# SPDX-License-Identifier: MIT
"""What tells one device from another outside the data partition: its machine-id and its ssh host keys."""

import contextlib
import os
from pathlib import Path

from composeapps import durable

_KEYS = "ssh_host_*_key*"


def machine_id(root):
    """Return the machine-id of a root file system, "" for none."""
    try:
        return Path(root, "etc/machine-id").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def forget(root, known):
    """Have the device draw a new identity at its next start, where the root file system can be written to.

    Arguments:
        root: the root file system's top.
        known: the machine-id that is to go; another one was drawn since.

    It can be repeated. Returns whether the machine-id was forgotten: what runs has it until the next start.
    Raises OSError.
    """
    changed = False
    machine, keys = Path(root, "etc/machine-id"), Path(root, "etc/ssh")
    if not os.access(machine.parent, os.W_OK):
        return False
    # "Uninitialized" would make the next boot a first one for systemd, which enables units by their presets then; an
    # empty file only lets it draw a number (machine-id(5)).
    if known and machine_id(root) == known:
        durable.write_file(machine, b"", mode=0o444)
        changed = True
    for path in sorted(keys.glob(_KEYS)) if keys.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    if keys.is_dir():
        durable.fsync_directory(keys)
    return changed
