# SPDX-License-Identifier: MIT
"""What removals set aside of apps' directories, because it is not the bundle's: how much it is.

It may be the user's only copy of something, so nothing here removes it.
"""

import contextlib
import os
from typing import NamedTuple

from composeapps.installed.placed import KEPT


class SetAside(NamedTuple):
    """What was set aside.

    ``path`` is the directory, ``entries`` how many removals left something in it, ``bytes`` the room that this takes;
    ``complete`` tells that all of it could be looked at, however deep somebody nested it.
    """

    path: str
    entries: int
    bytes: int
    complete: bool

    def dump(self):
        """Return this as JSON-ready data."""
        return self._asdict()


def measure(config):
    """Return the SetAside of a device. Raises nothing."""
    path, entries, size, errors = os.path.join(config.compose_root, KEPT), 0, 0, []
    try:
        # Step by step from open directories, and no link is followed: what lies there was a container's.
        for _root, directories, files, descriptor in os.fwalk(path, onerror=errors.append, follow_symlinks=False):
            entries = entries or len(directories) + len(files)
            for name in (*directories, *files):
                with contextlib.suppress(OSError):
                    size += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        pass
    except (OSError, RecursionError) as err:
        errors.append(err)
    return SetAside(path, entries, size, not errors)
