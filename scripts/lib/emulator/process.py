# SPDX-License-Identifier: MIT
"""Start a program under the supervisor, and end it for certain."""

import contextlib
import os
import select
import signal
import subprocess
import sys
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
        self.exit_status = None
        reader, writer = os.pipe()
        with open(reader, "rb") as report:
            try:
                with open(stderr, "ab") as log:
                    self._supervisor = subprocess.Popen(
                        [sys.executable, "-I", str(SUPERVISOR), str(os.getpid()), str(writer), *map(str, argv)],
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        pass_fds=[writer, *pass_fds], start_new_session=True,
                    )
            finally:
                os.close(writer)
            self._pidfd = None
            try:
                pid = report.readline()
                if not pid:
                    status = self._supervisor.wait(10)
                    raise EmulatorError(f"{argv[0]} did not start (status {status}); see {stderr}")
                self.pid = int(pid)
                # Gone already and waited for by the supervisor: then there is nothing to watch.
                with contextlib.suppress(ProcessLookupError):
                    self._pidfd = os.pidfd_open(self.pid)
            except BaseException:
                self.kill()
                raise

    def alive(self):
        """Tell whether the program still runs."""
        return self.wait(0) is None

    def wait(self, timeout):
        """Wait up to ``timeout`` seconds; return the exit status, 128 + signal, or None when it still runs.

        When it returns a status, the program's files are closed and its locks gone.
        """
        if self.exit_status is not None:
            return self.exit_status
        if self._pidfd is not None:
            # Not the supervisor's end: the program ends a moment after a supervisor that was killed.
            if not select.select([self._pidfd], [], [], max(0, timeout))[0]:
                return None
            os.close(self._pidfd)
            self._pidfd = None
        try:
            status = self._supervisor.wait(max(1, timeout))
        except subprocess.TimeoutExpired:
            return None
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
