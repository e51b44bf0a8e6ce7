# SPDX-License-Identifier: MIT
"""Start a program under the supervisor, and end it for certain."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from .errors import EmulatorError

SUPERVISOR = Path(__file__).with_name("supervise.py")


class Process:
    """A program in a process group of its own that dies with this process.

    ``argv`` is the program and its arguments, ``stderr`` a path that its standard output and
    error are appended to, ``pass_fds`` the file descriptors it inherits (closed here by the
    caller). ``pid`` is the program's own process id. Raises EmulatorError when it cannot start.
    """

    def __init__(self, argv, stderr, pass_fds=()):
        self._life, life = os.pipe()
        try:
            with open(stderr, "ab") as log:
                self._supervisor = subprocess.Popen(
                    [sys.executable, "-I", str(SUPERVISOR), str(os.getpid()), str(life), *map(str, argv)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    pass_fds=[life, *pass_fds], start_new_session=True,
                )
        except BaseException:
            os.close(self._life)
            raise
        finally:
            os.close(life)
        self.exit_status = None
        try:
            self.pid = self._read_pid()
            if self.pid is None:
                status = self.wait(10)
                raise EmulatorError(f"{argv[0]} did not start (status {status}); see {stderr}")
        except BaseException:
            self.kill()
            raise

    def _read_pid(self):
        line = b""
        while not line.endswith(b"\n"):
            chunk = os.read(self._life, 32)
            if not chunk:
                return None
            line += chunk
        return int(line)

    def alive(self):
        """Tell whether the program still runs."""
        return self.wait(0) is None

    def wait(self, timeout):
        """Wait up to ``timeout`` seconds; return the exit status, 128 + signal, or None when it still runs."""
        if self.exit_status is not None:
            return self.exit_status
        deadline = time.monotonic() + timeout
        readable, _, _ = select.select([self._life], [], [], max(0, timeout))
        if not readable:
            return None
        try:
            status = self._supervisor.wait(max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        os.close(self._life)
        self.exit_status = status if status >= 0 else 128 - status
        return self.exit_status

    def kill(self, timeout=10):
        """Kill the program with SIGKILL and wait up to ``timeout`` seconds until it is gone.

        Raises EmulatorError when it is not, as when the kernel holds it in an uninterruptible state.
        """
        if self.exit_status is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._supervisor.pid, signal.SIGKILL)
        if self.wait(timeout) is None:
            raise EmulatorError(f"process group {self._supervisor.pid} does not end after SIGKILL")
