# SPDX-License-Identifier: MIT
"""What is going on, on the terminal or in a log, for checks that take minutes to hours."""

import contextlib
import time

from rich.console import Console

from layercheck.results import Status

_MARKS = {Status.PASSED: "[green]✓[/]", Status.FAILED: "[red]✗[/]", Status.UNREACHED: "[yellow]–[/]"}
_LOG_SECONDS = 60


class Progress:
    """Shows the step at work: a moving line on a terminal, a line a minute elsewhere.

    Arguments:
        quiet: show nothing.
    """

    def __init__(self, quiet=False):
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._status = None
        self._told = set()
        self._name = ""
        self._started = self._said = 0.0

    @contextlib.contextmanager
    def step(self, name):
        """Show ``name`` and how long it has taken while the body runs."""
        self._name = name
        self._started = self._said = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(f"{name} …", markup=False)
            yield
            return
        with self._console.status(name) as self._status:
            try:
                yield
            finally:
                self._status = None

    def detail(self, text=""):
        """Say what the step is at; cheap enough to be called often."""
        now = time.monotonic()
        elapsed = int(now - self._started)
        line = f"{self._name}  {elapsed // 60}:{elapsed % 60:02} {text}"
        if self._status:
            self._status.update(line.replace("[", r"\["))
        elif now - self._said >= _LOG_SECONDS:
            self._said = now
            self._console.print(f"  {line}", markup=False)

    def say(self, text):
        """Print text that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def report(self, result):
        """Print a line about a Result that stays, and what is wrong, if something is."""
        again = " (as before)" if result.reused else ""
        self._console.print(_MARKS[result.status], end=" ")
        self._console.print(f"{result.check} {result.subject}: {result.summary}{again} ", markup=False, end="")
        self._console.print(f"[dim]{result.seconds:.0f} s[/]")
        # Checks of one combination share their reasons: once is enough.
        new = [problem for problem in result.problems if problem not in self._told]
        self._told.update(new)
        for problem in new:
            for line in problem.splitlines():
                self._console.print(f"    {line}", markup=False, soft_wrap=True)
        if new and result.log:
            self._console.print(f"    whole output: {result.log}", markup=False, soft_wrap=True)
