# SPDX-License-Identifier: MIT
"""What tells one device from another outside the data partition: its machine-id and its ssh host keys."""

import contextlib
import os
from pathlib import Path

from composeapps import durable

# Of OpenSSH and of Dropbear.
_KEYS = (("etc/ssh", "ssh_host_*_key*"), ("etc/dropbear", "dropbear_*_host_key*"))
# Where they are, relative to /var, when the root file system is read-only.
KEYS_OF_VAR = ("lib/composeapps/ssh", "lib/dropbear")


def machine_id(root):
    """Return the machine-id of a root file system, "" for none."""
    try:
        return Path(root, "etc/machine-id").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def forget_machine(root, known):
    """Have the device draw a new machine-id at its next start, where the root file system can be written to.

    Arguments:
        root: the root file system's top.
        known: the machine-id that is to go; another one was drawn since.

    It can be repeated. Returns whether it was forgotten: what runs has it until the next start. Raises StorageError.
    """
    machine = Path(root, "etc/machine-id")
    if not known or machine_id(root) != known or not os.access(machine.parent, os.W_OK):
        return False
    # "Uninitialized" would make the next boot a first one for systemd, which enables units by their presets then; an
    # empty file only lets it draw a number (machine-id(5)).
    with durable.storage_errors("forgetting the machine-id"):
        durable.write_file(machine, b"", mode=0o444)
    return True


def remember_machine(root, known):
    """Put a machine-id back that ``forget_machine`` took, before another one was drawn. Raises StorageError."""
    machine = Path(root, "etc/machine-id")
    if known and not machine_id(root) and os.access(machine.parent, os.W_OK):
        with durable.storage_errors("putting the machine-id back"):
            durable.write_file(machine, f"{known}\n".encode(), mode=0o444)


def forget_keys(root):
    """Remove the ssh host keys, where the root file system can be written to; sshd makes new ones. Raises OSError."""
    for directory, pattern in _KEYS:
        keys = Path(root, directory)
        if not keys.is_dir() or not os.access(keys, os.W_OK):
            continue
        for path in sorted(keys.glob(pattern)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        durable.fsync_directory(keys)
