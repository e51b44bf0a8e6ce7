# SPDX-License-Identifier: MIT
"""Work with mounts that nobody else sees and that end with the process that made them.

A file system that other processes can see may be copied into their mount namespaces; it then
lives on after it was unmounted here, and its loop device with it.
"""

import contextlib
import ctypes
import os
import signal
import traceback
from multiprocessing.connection import Pipe
from pathlib import Path

from crash.errors import CrashError

# The same path in every process: dockerd writes the absolute path of its data root into its files.
HOME = Path("/run/composeapps-crash")
CLONE_NEWNS = 0x20000
MS_PRIVATE_TREE = 0x40000 | 0x4000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _call(function, *args):
    if function(*args):
        number = ctypes.get_errno()
        raise CrashError(f"this needs root and namespaces of one's own ({os.strerror(number)}): run it as root")


def enter():
    """Move this process into a mount namespace of its own, with an empty tmpfs at HOME."""
    _call(_libc.unshare, CLONE_NEWNS)
    _call(_libc.mount, None, b"/", None, MS_PRIVATE_TREE, None)
    HOME.mkdir(mode=0o700, exist_ok=True)
    _call(_libc.mount, b"crash", os.fsencode(HOME), b"tmpfs", 0, b"mode=755,size=75%")


class Child:
    """A process that runs ``function(send, *args)`` in mounts of its own.

    ``receive()`` returns what it sends, message by message, and raises EOFError at its end, or
    CrashError when it failed. ``connection`` can be waited for.
    """

    def __init__(self, function, *args):
        self.connection, theirs = Pipe(duplex=False)
        self._parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self.connection.close()
            self._run(function, args, theirs)
        theirs.close()

    def _run(self, function, args, pipe):
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == self._parent:
                enter()
                function(lambda message: pipe.send(("message", message)), *args)
                status = 0
        except CrashError as err:
            pipe.send(("failed", str(err)))
        except BaseException:
            pipe.send(("failed", traceback.format_exc()))
        finally:
            with contextlib.suppress(OSError):
                pipe.close()
            os._exit(status)

    def receive(self):
        """Return the next message; see the class."""
        try:
            kind, value = self.connection.recv()
        except EOFError:
            self._end()
            raise
        if kind == "failed":
            self._end()
            raise CrashError(value)
        return value

    def _end(self):
        self.connection.close()
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        if os.WIFSIGNALED(status):
            raise CrashError(f"a process of the harness was killed by signal {os.WTERMSIG(status)}: is memory short?")

    def kill(self):
        """End it now; safe to call twice."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None
            self.connection.close()


def isolated(function, *args):
    """Run ``function(*args)`` in a process with mounts of its own and return what it returns.

    Raises CrashError when it fails.
    """
    child = Child(lambda send: send(function(*args)))
    try:
        answer = child.receive()
        with contextlib.suppress(EOFError):
            child.receive()
        return answer
    finally:
        child.kill()
