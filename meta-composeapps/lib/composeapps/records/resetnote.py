# SPDX-License-Identifier: MIT
"""What the last factory reset left and why: ``<state_dir>/reset.json``.

One JSON object: "time" (when it was asked for, UTC, ISO 8601), "origin" (who asked: "command", "kernel" or "systemd"),
"kept" ("nothing", "registration" or "data"), "discarded" (whether the disk was told to drop the blocks), and "lost",
the sentence that says why less was kept than asked for, or "".
"""

import json

from composeapps import beneath, durable

NAME = "reset.json"
_TEXTS = ("time", "origin", "kept", "lost")


def write(state_dir, note):
    """Write the note, durably. Raises StorageError."""
    with durable.storage_errors("writing down the factory reset"):
        durable.make_directories(state_dir, 0o700)
        durable.write_file(state_dir / NAME, json.dumps(note).encode() + b"\n")


def read(state_dir):
    """Return the note, None for none or one that cannot be read: it is for people only."""
    try:
        found = json.loads(beneath.read_regular(state_dir / NAME))
        return {**{key: str(found[key]) for key in _TEXTS}, "discarded": found["discarded"] is True}
    except (OSError, ValueError, KeyError, TypeError):
        return None
