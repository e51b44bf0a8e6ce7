# SPDX-License-Identifier: MIT
"""The device that scripts/demo --keep leaves running: a process that owns the machine, and what asks it.

The process listens at a socket in build/demo; a request and its answer are one JSON document each. It holds the
file ``device`` there (see hub.held), and its machine ends with it, in whatever way that ends.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

from composeapps import durable
from demonstration.errors import DemoError
from emulator.errors import EmulatorError
from hub import held

STOP_SECONDS = 30
# Enough for what a command prints, little for somebody who does not stop.
_LONGEST = 1 << 20
RUNS_ALREADY = "the device of an earlier --keep runs: end it with 'scripts/demo --down'"
REMEDY = "scripts/demo --keep leaves one running"


class Kept:
    """The kept device of one build directory.

    Arguments:
        build: the directory for products.
    """

    def __init__(self, build):
        self.directory = Path(build).resolve() / "demo"
        self._mark = self.directory / "device"
        self._about = self.directory / "device.json"
        self._socket = self.directory / "device.socket"

    def running(self):
        """Tell whether a device runs."""
        return held.holder(self._mark) is not None

    def begin(self):
        """Go on in a process of its own, which outlives this one.

        Returns None there. Here it returns the exit status of the other's first part, when that calls ``serve``
        or ends; a Ctrl-C here ends the other. Raises DemoError when a device runs already.
        """
        durable.make_directories(self.directory)
        if self.running():
            raise DemoError(RUNS_ALREADY)
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            # Out of reach of the terminal's signals; asked to end, it ends as after an exception.
            os.setsid()
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
            self._told = writer
            self._open = held.take(self._mark)
            self._open.write(f"{os.getpid()}\n".encode())
            self._open.flush()
            return None
        os.close(writer)
        with open(reader, "rb") as told:
            try:
                word = told.read()
            except BaseException:
                os.kill(child, signal.SIGTERM)
                os.waitpid(child, 0)
                raise
        # It has ended or has said that all is well.
        return int(word) if word else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def serve(self, machine, about):
        """Let the process that waits in ``begin`` go, and run commands on the machine until it is off or this ends.

        Arguments:
            machine: the logged-in Machine.
            about: a JSON-able description for ``about``.
        """
        durable.write_file(self._about, json.dumps(about).encode())
        self._socket.unlink(missing_ok=True)
        directory = os.open(self.directory, os.O_RDONLY)
        before = os.umask(0o077)
        with socket.socket(socket.AF_UNIX) as server:
            # Through a descriptor: a socket's path must be short.
            server.bind(f"/proc/self/fd/{directory}/{self._socket.name}")
            os.umask(before)
            server.listen()
            self._let_go()
            while machine.running:
                if select.select([server], [], [], 1)[0]:
                    with contextlib.suppress(OSError, ValueError), server.accept()[0] as client:
                        client.settimeout(10)
                        _answer(machine, client)

    def _let_go(self):
        sys.stdout.flush()
        sys.stderr.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)
        os.write(self._told, b"0")
        os.close(self._told)

    def about(self):
        """Return what ``serve`` was told of the device; raises DemoError when none runs."""
        if not self.running():
            raise DemoError(f"no device runs: {REMEDY}")
        return json.loads(self._about.read_bytes())

    def run(self, command, timeout):
        """Run a command on the device; return {"exit_status": …, "stdout": …}.

        Arguments:
            timeout: seconds that it may take, more under emulation.

        Raises DemoError when no device runs, or it does not answer.
        """
        if not self.running():
            raise DemoError(f"no device runs: {REMEDY}")
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"/proc/self/fd/{directory}/{self._socket.name}")
                client.sendall(json.dumps({"command": command, "timeout": timeout}).encode())
                client.shutdown(socket.SHUT_WR)
                answer = json.loads(_read(client))
        except PermissionError:
            raise DemoError("the device was started by another user: run this as that user, or with sudo") from None
        except (OSError, ValueError):
            raise DemoError("the device does not answer: end it with 'scripts/demo --down'") from None
        finally:
            os.close(directory)
        if "error" in answer:
            raise DemoError(answer["error"])
        return answer

    def down(self):
        """End the device, if one runs, and tell whether one did. Its disk goes with it."""
        ended = held.end(self._mark, "the device", STOP_SECONDS)
        for path in (self._socket, self._about):
            path.unlink(missing_ok=True)
        return ended


def _answer(machine, client):
    request = json.loads(_read(client))
    # A command takes what it takes; whoever asked waits for it.
    client.settimeout(None)
    try:
        result = machine.run(str(request["command"]), int(request["timeout"]), check=False)
        answer = {"exit_status": result.exit_status, "stdout": result.stdout}
    except (EmulatorError, KeyError) as err:
        answer = {"error": str(err)}
    client.sendall(json.dumps(answer).encode())


def _read(connection):
    pieces, size = [], 0
    while piece := connection.recv(65536):
        pieces.append(piece)
        size += len(piece)
        if size > 16 * _LONGEST:
            raise ValueError("too long")
    return b"".join(pieces)
