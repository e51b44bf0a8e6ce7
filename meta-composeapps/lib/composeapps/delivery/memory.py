# SPDX-License-Identifier: MIT
"""What check-ins remember of each other until the next boot: in /run, so that nothing is written to the flash.

Lost, it costs a report that is made once more, and a try that comes early.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time

from composeapps import beneath, durable
from composeapps.errors import LockedError
from composeapps.records import lock

# Seconds until the next try after one that failed, doubled with each, and at most so many.
_FIRST, _LONGEST = 60, 6 * 3600


class Memory(dict):
    """A mapping that JSON can have, of one device's state directory.

    "failures" counts the check-ins in a row that came to nothing, "next" is when the next one may be, by the clock that
    runs since the boot.
    """

    def __init__(self, state_dir):
        self._state_dir = state_dir
        stem = hashlib.sha256(str(state_dir).encode()).hexdigest()[:16]
        self._path = lock.RUNTIME / f"checkin-{stem}.json"
        super().__init__(self._read())
        self._before = json.dumps(self)

    def _read(self):
        try:
            found = json.loads(beneath.read_regular(self._path))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError, RecursionError):
            return {}

    def save(self):
        """Write it where it has changed; a file system that refuses leaves it as it was."""
        text = json.dumps(self)
        if text == self._before:
            return
        with contextlib.suppress(OSError):
            lock.RUNTIME.mkdir(mode=0o755, exist_ok=True)
            temporary = self._path.with_name(f".tmp-{self._path.name}-{os.getpid()}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w") as stream:
                stream.write(text)
            os.replace(temporary, self._path)
            self._before = text

    @contextlib.contextmanager
    def alone(self):
        """Keep other check-ins of this device out; raises LockedError when there is one."""
        with durable.storage_errors("taking the lock of check-ins"):
            durable.make_directories(self._state_dir)
            descriptor = os.open(self._state_dir / "checkin.lock",
                                 os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError("another check-in of this device is under way: wait for it, or stop it") from None
            yield
        finally:
            os.close(descriptor)

    def wait(self):
        """Return for how many seconds no check-in is due, after those that failed."""
        until = self.get("next")
        return max(until - _now(), 0) if isinstance(until, int | float) else 0

    def failed(self, after=None):
        """Count a check-in that came to nothing; ``after`` are the seconds that the server asked for, or None."""
        failures = self.get("failures")
        failures = failures + 1 if isinstance(failures, int) else 1
        pause = min(_FIRST * 2 ** min(failures - 1, 20), _LONGEST)
        # A fleet that lost its server does not come back in step.
        pause *= 0.5 + int.from_bytes(os.urandom(4)) / 2**32
        self.update(failures=failures, next=_now() + max(pause, min(after or 0, _LONGEST)))

    def succeeded(self):
        """Note that the server was reached, and what it said was believed."""
        self.pop("failures", None)
        self.pop("next", None)


def _now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)
