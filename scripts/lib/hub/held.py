# SPDX-License-Identifier: MIT
"""A file that a lasting process has locked, with its id in it: who runs is what the kernel says.

Whatever ended the process, the lock ended with it, and an id that another process got since is never taken for it.
"""

import contextlib
import fcntl
import os
import select
import signal
import time

from composeapps.errors import RegistryError


def holder(path):
    """Return the id of the process that holds the file, or None."""
    try:
        with open(path, "rb") as mark:
            while True:
                try:
                    fcntl.flock(mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return None
                except BlockingIOError:
                    mark.seek(0)
                    pid = int(mark.read() or 0)
                    if pid:
                        return pid
                    # Between the lock and the first word of the process.
                    time.sleep(0.02)
    except (FileNotFoundError, ValueError):
        return None


def take(path):
    """Lock the file, which nobody holds, empty it, and return it open: who has it open holds it."""
    mark = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "wb")  # noqa: SIM115 - it is the lock
    try:
        # Waits for those who look whether somebody holds it, at that moment.
        fcntl.flock(mark, fcntl.LOCK_EX)
        mark.truncate(0)
    except BaseException:
        mark.close()
        raise
    return mark


def end(path, what, seconds):
    """End the process that holds the file and wait until it has; tell whether there was one.

    Arguments:
        what: how an error names it.
        seconds: how long it has to end by itself.

    Raises RegistryError when it belongs to another user or does not end.
    """
    pid = holder(path)
    if not pid:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Looked at again: from here on the handle is of the process that holds the lock.
        if holder(path) != pid:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], seconds)[0]:
                return True
    except PermissionError:
        raise RegistryError(f"{what} (process {pid}) was started by another user: run this as that user, "
                            "or with sudo") from None
    finally:
        os.close(handle)
    raise RegistryError(f"{what} (process {pid}) does not end")
