# SPDX-License-Identifier: MIT
"""Running other programs: in an environment that is always the same, for a limited time, and ended as a whole."""

import contextlib
import os
import time

# All that a program gets of an environment. The agent's own is its caller's: a service manager's, or a shell's
# with whatever is exported there.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
}
# The longest line that is handed on, in bytes.
MAX_LINE = 4096


def run(argv, environment, limit, line, cwd="/", patience=0, pass_fds=()):
    """Run a program in a process group of its own, handing on what it writes line by line.

    Arguments:
        argv: the program and its arguments.
        environment: its whole environment.
        limit: seconds after which it is ended, with all of its process group; so it is when this is
            interrupted by an exception.
        line: called with each line (text) of its output and its errors; empty ones are left out.
        cwd: its working directory.
        patience: seconds between being asked to end and being killed.
        pass_fds: descriptors that it inherits.

    Returns its exit status, negative for a signal, or None when it took too long. Raises OSError when it
    cannot be started.
    """
    import subprocess

    deadline = time.monotonic() + limit
    process = subprocess.Popen(argv, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True, pass_fds=pass_fds)
    ended = False
    try:
        with process.stdout as output:
            os.set_blocking(output.fileno(), False)
            ended = _relay(process, output.fileno(), deadline, line)
    finally:
        if not ended:
            _end(process, patience)
    return process.wait() if ended else None


def _end(process, patience):
    import select
    import signal

    # Not waited for before all of the group is killed: until then nobody else can get its number.
    with contextlib.suppress(ProcessLookupError):
        if patience:
            os.killpg(process.pid, signal.SIGTERM)
            handle = os.pidfd_open(process.pid)
            try:
                select.select([handle], [], [], patience)
            finally:
                os.close(handle)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _relay(process, output, deadline, line):
    """Hand on lines until the program ends; return False when it does not until ``deadline``.

    What it leaves in the background may hold its output open, so the end of that is not waited for.
    """
    import select

    pending, poll = b"", select.poll()
    handle = os.pidfd_open(process.pid)
    try:
        poll.register(handle, select.POLLIN)
        poll.register(output, select.POLLIN)
        while True:
            ready = dict(poll.poll(max(0, deadline - time.monotonic()) * 1000))
            if not ready:
                return False
            if output in ready:
                try:
                    data = os.read(output, 65536)
                except BlockingIOError:
                    data = None
                if data == b"":
                    poll.unregister(output)
                pending = _lines(pending + (data or b""), line)
                # First all that it wrote, then its end; but not longer than it may take.
                if data and time.monotonic() < deadline:
                    continue
            if handle in ready:
                return True
            if time.monotonic() >= deadline:
                return False
    finally:
        os.close(handle)
        if pending:
            line(pending.decode(errors="replace").rstrip())


def _lines(data, line):
    """Hand on the complete lines of ``data``; return the rest."""
    *whole, rest = data.split(b"\n")
    if len(rest) > MAX_LINE:
        whole, rest = [*whole, rest], b""
    for each in whole:
        if each.strip():
            line(each[:MAX_LINE].decode(errors="replace").rstrip())
    return rest
