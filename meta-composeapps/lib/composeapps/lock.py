# SPDX-License-Identifier: MIT
"""One writer at a time: an advisory lock that dies with its process."""

import contextlib
import fcntl
import os
import sys
from pathlib import Path

from composeapps import durable
from composeapps.errors import LockedError


@contextlib.contextmanager
def exclusive(path):
    """Hold the lock file ``path``, made if need be.

    Raises LockedError, naming the holder, when another process has it.
    """
    path = Path(path)
    with durable.storage_errors("taking the lock"):
        durable.make_directories(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(descriptor, "r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = stream.read(200).strip() or "another process"
            raise LockedError(f"{holder} is at work on the apps (lock {path}): wait for it, or stop it") from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} ({' '.join(Path(word).name for word in sys.argv[:2])})\n")
        stream.flush()
        yield
