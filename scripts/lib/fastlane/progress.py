# SPDX-License-Identifier: MIT
"""Progress on the terminal, and the time that each step took."""

import contextlib
import os
import time

from rich.console import Console
from rich.markup import escape


class Progress:
    """Shows the step at work and remembers how long each took.

    Arguments:
        quiet: show nothing (the times are kept all the same).
    """

    def __init__(self, quiet=False):
        # BitBake points descriptors 1 and 2 at a task's log while it runs: keep one of our own.
        self._stream = os.fdopen(os.dup(2), "w", buffering=1)
        self._console = Console(file=self._stream, quiet=quiet, highlight=False)
        self._status = None
        self._also = None
        self.timings = []

    def also_to(self, console):
        """Print what stays to a second rich Console too."""
        self._also = console

    def close(self):
        """Let go of the terminal; nothing is shown from now on."""
        self._console.quiet = True
        self._stream.close()

    def _print(self, *what, **how):
        for console in filter(None, (self._console, self._also)):
            console.print(*what, **how)

    @contextlib.contextmanager
    def step(self, name):
        """Show ``name`` while the body runs, then its time in seconds. A step may have steps of its own."""
        started = time.monotonic()
        if self._status:
            self.detail(name)
            yield
        elif self._console.is_terminal:
            with self._console.status(name) as self._status:
                try:
                    yield
                finally:
                    self._status = None
        else:
            self._console.print(f"{name} …", markup=False, soft_wrap=True)
            yield
        seconds = time.monotonic() - started
        self.timings.append({"step": name, "seconds": round(seconds, 2)})
        self._print(f"[green]✓[/] {escape(name)} [dim]{seconds:.1f} s[/]", soft_wrap=True)

    def detail(self, text):
        """Say what the current step is doing; on a terminal only."""
        if self._status and self.timings is not None:
            self._status.update(text)

    def say(self, text):
        """Print one line that stays."""
        # A path or an address stays whole, however narrow the terminal is.
        self._print(text, markup=False, soft_wrap=True)

    def summary(self, title, seconds):
        """Print the steps with their times, the slowest visible at a glance."""
        self._console.print(f"{title} {seconds:.1f} s", markup=False)
