# SPDX-License-Identifier: MIT
"""A limit on bytes a second that several threads share."""

import threading
import time


class RateLimit:
    """A token bucket that holds a quarter of a second's worth.

    Arguments:
        rate: bytes a second; 0 for no limit.
        wait: called with the seconds to wait, so that whoever waits can be woken.
    """

    def __init__(self, rate, wait=time.sleep):
        self._rate, self._wait = rate, wait
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, wanted):
        """Return how many of ``wanted`` bytes may be read now: 1 or more, after waiting for one's turn."""
        if not self._rate:
            return wanted
        count = max(1, min(wanted, self._rate // 20))
        with self._lock:
            now = time.monotonic()
            # What was not used is lost but for a quarter of a second.
            self._free_at = max(self._free_at, now - 0.25) + count / self._rate
            delay = self._free_at - now
        if delay > 0:
            self._wait(delay)
        return count

    def give_back(self, count):
        """Return bytes that were taken and not used."""
        if self._rate and count > 0:
            with self._lock:
                self._free_at -= count / self._rate


def parse_rate(text):
    """Return bytes a second for "750k", "2M" or "1.5MB/s" (powers of ten); None when it is none of these."""
    number = text.strip().lower().removesuffix("/s").removesuffix("b")
    factor = {"k": 1e3, "m": 1e6, "g": 1e9}.get(number[-1:], 1)
    try:
        value = float(number[:-1] if factor > 1 else number)
    except ValueError:
        return None
    return int(value * factor) if 0 <= value * factor < 1e12 else None
