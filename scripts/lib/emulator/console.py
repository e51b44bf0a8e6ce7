# SPDX-License-Identifier: MIT
"""The serial console: drained at all times, logged twice, read through pexpect.

A thread reads whatever the guest writes, so that the guest never waits for us, and the logs are whole
whether or not anybody expects something.
"""

import contextlib
import re
import socket
import threading
import time
from pathlib import Path

from pexpect.exceptions import EOF, TIMEOUT
from pexpect.spawnbase import SpawnBase

PANIC = re.compile(rb"Kernel panic - not syncing[^\r\n]*")
_COMPLAINT = re.compile(r"\b(BUG|Oops|Kernel panic|general protection fault)\b")
# Terminal control, ECMA-48: CSI and OSC sequences, other escapes; then lone control characters.
_ESCAPES = re.compile(
    r"\x1b(\[[0-9;?!]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\^_=>78])|[\x00-\x08\x0b-\x1f\x7f]"
)


class SerialLog:
    """Writes ``serial.log``, as the guest wrote it, and ``serial-timed.log`` in ``directory``.

    The latter has before each line the seconds since power-on at which its first character came, and
    no control characters. Both are appended to, since a machine is powered on more than once.
    """

    def __init__(self, directory, power_on):
        self._raw = open(Path(directory) / "serial.log", "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._timed = open(Path(directory) / "serial-timed.log", "a", buffering=1)  # noqa: SIM115
        self._started = time.monotonic()
        self._line = bytearray()
        self._line_time = None
        self._timed.write(f"--- power-on {power_on} ---\n")

    def write(self, data):
        """Take ``data`` (bytes) that just came from the guest."""
        self._raw.write(data)
        now = time.monotonic() - self._started
        for piece in data.splitlines(keepends=True):
            if self._line_time is None:
                self._line_time = now
            self._line += piece
            if piece.endswith((b"\n", b"\r")) and self._line.strip():
                self._flush()
            elif piece.endswith(b"\n"):
                self._line.clear()
                self._line_time = None

    def _flush(self):
        self._timed.write(f"[{self._line_time:10.3f}] {printable(bytes(self._line)).strip()}\n")
        self._line.clear()
        self._line_time = None

    def close(self):
        """Write what is left and close both files."""
        if self._line.strip():
            self._flush()
        self._raw.close()
        self._timed.close()


def printable(data):
    """Return console output (bytes) as text without escape sequences and control characters."""
    return _ESCAPES.sub("", data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n"))


class Console(SpawnBase):
    """The console at the other end of ``sock``, as a pexpect object for bytes.

    ``log`` is a SerialLog. ``ended`` tells that the guest's side is closed; ``panic`` is None or the kernel's
    panic line.
    """

    TAIL = 16384  # bytes of the console kept for messages

    def __init__(self, sock, log):
        super().__init__(timeout=30, maxread=65536)
        self._sock = sock
        self._log = log
        self._pending = bytearray()
        self._news = threading.Condition()
        self._tail = bytearray()
        self.ended = False
        self.panic = None
        self._sink = None
        self._pump = threading.Thread(target=self._drain, name="serial console", daemon=True)
        self._pump.start()

    def _drain(self):
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            with self._news:
                if not data:
                    self.ended = True
                    self._log.close()
                    self._news.notify_all()
                    return
                self._log.write(data)
                known = len(self._tail)
                self._tail += data
                found = PANIC.search(self._tail, max(0, known - 200))
                if found and self.panic is None:
                    self.panic = found[0].decode(errors="replace")
                del self._tail[: -self.TAIL]
                if self._sink:
                    self._sink(data)
                else:
                    self._pending += data
                self._news.notify_all()

    def read_nonblocking(self, size=1, timeout=None):
        """Return 1 to ``size`` bytes; raise pexpect's TIMEOUT after ``timeout`` seconds, its EOF at the end."""
        if timeout == -1:
            timeout = self.timeout
        with self._news:
            if not self._news.wait_for(lambda: self._pending or self.ended, timeout):
                raise TIMEOUT("the console is silent")
            if not self._pending:
                self.flag_eof = True
                raise EOF("the console is closed")
            data = bytes(self._pending[:size])
            del self._pending[:size]
        return data

    def send(self, data):
        """Send ``data`` (bytes) to the guest; raises EOF when its side is closed."""
        try:
            self._sock.sendall(data)
        except OSError as err:
            raise EOF("the console is closed") from err

    def divert(self, sink):
        """Call ``sink`` with all output from now on, and with what nobody expected yet; None ends that.

        ``sink`` is called from a thread of the console's, one call at a time.
        """
        with self._news:
            if sink and self._pending:
                sink(bytes(self._pending))
                self._pending.clear()
            self._sink = sink

    def discard(self):
        """Forget all output that was not yet expected, and any panic: what follows is a new boot's."""
        with self._news:
            self._pending.clear()
            self.panic = None
        self.buffer = b""

    def tail(self, lines=25):
        """Return the last ``lines`` lines the guest wrote, without control characters."""
        with self._news:
            text = printable(bytes(self._tail))
        return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-lines:])

    def last_words(self):
        """Return what a kernel said when it died: from its first complaint on, without the middle of a long one."""
        lines = self.tail(10_000).splitlines()
        start = next((number for number, line in enumerate(lines) if _COMPLAINT.search(line)), 0)
        lines = lines[start:]
        return "\n".join(lines if len(lines) <= 30 else [*lines[:24], "…", *lines[-5:]])

    def wait_for_text(self, text, timeout):
        """Wait up to ``timeout`` seconds until ``text`` (bytes) is among the last output, expected or not."""
        with self._news:
            return self._news.wait_for(lambda: self.ended or text in self._tail, timeout)

    def close(self):
        """Close our side and wait until the logs are complete."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._pump.join(10)
        self._sock.close()
