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


def holder(path):
    """Return (process ID, words) of the process that holds the lock file ``path``, or None.

    Nothing is locked for that, not even for a moment: a command that starts meanwhile gets the lock.
    """
    try:
        with open(path, "rb") as stream:
            inode, words = os.fstat(stream.fileno()).st_ino, stream.read(200).decode(errors="replace").strip()
        # The kernel takes long over the list of all locks, and a process that is gone holds none.
        told = "".join(words.split()[1:2])
        if not told.isdecimal() or not os.path.exists(f"/proc/{told}"):
            return None
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    for line in locks.splitlines():
        fields = line.split()
        # NUMBER: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END; one that waits has "->" before its kind.
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            pid = int(fields[4])
            # The device's number there is not always the one that stat gives; the process's own word decides.
            if words.startswith(f"process {pid} "):
                return pid, words
    return None
