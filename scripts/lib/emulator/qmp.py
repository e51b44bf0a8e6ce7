# SPDX-License-Identifier: MIT
"""A client of QEMU's machine protocol (QMP: docs/interop/qmp-spec of QEMU) over a connected socket."""

import json
import threading
import time
from collections import deque

from .errors import QMPError

ANSWER_TIMEOUT = 60.0  # seconds; the monitor answers at once unless the host is starved


class QMP:
    """Talks to the monitor at the other end of ``sock``; reads the greeting and enters command mode.

    Raises QMPError when QEMU ends meanwhile or says nothing within ``timeout`` seconds.
    """

    def __init__(self, sock, timeout=ANSWER_TIMEOUT):
        self._sock = sock
        self._buffer = b""
        self._events = deque(maxlen=1000)
        self._lock = threading.RLock()
        deadline = time.monotonic() + timeout
        while "QMP" not in self._read(deadline):
            pass
        self.command("qmp_capabilities")

    def _read(self, deadline):
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise QMPError("QEMU's monitor does not answer")
            self._sock.settimeout(remaining)
            try:
                chunk = self._sock.recv(65536)
            except TimeoutError:
                continue
            except OSError as err:
                raise QMPError(f"QEMU's monitor is gone: {err.strerror}") from err
            if not chunk:
                raise QMPError("QEMU's monitor is gone: QEMU has ended")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def command(self, name, /, timeout=ANSWER_TIMEOUT, **arguments):
        """Run one monitor command and return what it returned; raise QMPError when it is refused."""
        request = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        deadline = time.monotonic() + timeout
        with self._lock:
            self._sock.settimeout(timeout)
            try:
                self._sock.sendall(json.dumps(request).encode() + b"\n")
            except OSError as err:
                raise QMPError(f"QEMU's monitor is gone: {err.strerror}") from err
            while True:
                message = self._read(deadline)
                if "event" in message:
                    self._events.append(message)
                elif "error" in message:
                    raise QMPError(f"QEMU refuses '{name}': {message['error'].get('desc')}")
                elif "return" in message:
                    return message["return"]

    def human(self, line):
        """Run a command of the human monitor, which has some that QMP lacks; return its text."""
        return self.command("human-monitor-command", **{"command-line": line})

    def forget_events(self):
        """Drop the events seen so far, so that ``wait_event`` returns a later one."""
        with self._lock:
            self.command("query-status")  # its answer comes after whatever is on its way
            self._events.clear()

    def wait_event(self, name, timeout):
        """Wait up to ``timeout`` seconds for the event ``name`` and return it; raise QMPError."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                while self._events:
                    event = self._events.popleft()
                    if event["event"] == name:
                        return event
                message = self._read(deadline)
                if "event" in message:
                    self._events.append(message)

    def close(self):
        """Close the connection."""
        self._sock.close()
