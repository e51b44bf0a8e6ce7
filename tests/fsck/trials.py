# SPDX-License-Identifier: MIT
"""Running fsck in a process of its own that can be killed at any change that it makes."""

import json
import os
import signal
import sys
import traceback

# What changes a file system; each call is a place at which the power may go.
CHANGES = ("rename", "unlink", "rmdir", "mkdir", "symlink", "link", "fsync", "chown", "fchmod", "replace", "setxattr",
           "mknod", "truncate", "ftruncate", "utime")
KILLED, FAILED = 99, 98


def run(data_root, store, kill_at=None, timeout=60, **options):
    """Run fsck on a data root; return (exit status, report or text of the error, number of changes).

    Arguments:
        kill_at: stop dead before the change of this number, from 1; the status is then KILLED.
        timeout: seconds; SIGALRM ends a run that takes longer, and the status is negative.

    A traceback gives the status FAILED.
    """
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        os.close(source)
        status = FAILED
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(timeout)
            status = _child(sink, data_root, store, kill_at, options)
        except BaseException:
            _tell(sink, traceback.format_exc(), 0)
        os._exit(status)
    os.close(sink)
    with open(source, "rb") as stream:
        told = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answer, count = json.loads(told) if told else (None, 0)
    return status, answer, count


def _child(sink, data_root, store, kill_at, options):
    from composeapps import durable
    from composeapps.dockerstore import fsck
    from composeapps.errors import ComposeAppsError

    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the process ends soon
    count = 0

    def counted(real):
        def wrapper(*arguments, **more):
            nonlocal count
            count += 1
            if count == kill_at:
                os._exit(KILLED)
            # What a killed process wrote is not lost, so there is no need to wait for the disk.
            return None if real is fsync else real(*arguments, **more)

        return wrapper

    fsync, durable.sync_filesystem = os.fsync, lambda path: None
    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    try:
        report = fsck.run(data_root, store, **options)
    except ComposeAppsError as err:
        _tell(sink, str(err), count)
        return err.exit_code
    _tell(sink, report.to_json(), count)
    return report.exit_code


def _tell(sink, answer, count):
    with open(sink, "wb") as stream:
        stream.write(json.dumps([answer, count]).encode())
