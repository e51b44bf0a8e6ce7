# SPDX-License-Identifier: MIT
"""Figures, how they are measured in turns, and the table that shows them."""

import statistics
import time
from dataclasses import dataclass, field

from fastlane.progress import Progress


class BenchError(Exception):
    """A benchmark cannot be run; the message says why and what to do."""


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Arguments:
        name: what was measured.
        value: in ``unit``; the median where it was measured several times.
        unit: "s", "MB", …
        than: what ``value`` is compared with, in words, and ``reference`` its value in ``unit``.
        bar: the ratio of both that is not to be exceeded; without a reference, the value that is not. None for
            a figure that is only told.
        samples: {variant: values} as they were measured.
    """

    name: str
    value: float
    unit: str
    than: str = ""
    reference: float | None = None
    bar: float | None = None
    samples: dict = field(default_factory=dict)

    @property
    def ratio(self):
        """``value`` in terms of ``reference``, or None without one."""
        return self.value / self.reference if self.reference else None

    @property
    def met(self):
        """Whether the bar is kept; None without a bar."""
        return None if self.bar is None else (self.value if self.ratio is None else self.ratio) <= self.bar

    def dump(self):
        """Return the figure as JSON-ready data."""
        return {"name": self.name, "value": self.value, "unit": self.unit, "than": self.than,
                "reference": self.reference, "ratio": self.ratio, "bar": self.bar, "met": self.met,
                "samples": self.samples}


@dataclass
class Run:
    """What a benchmark gets: how often to measure, where to work, and whom to tell.

    Arguments:
        rounds: how often each variant is measured.
        scratch: a directory for large files, empty; removed afterwards.
        cache: a directory for what the next run can use again.
        progress: a fastlane.progress.Progress.
        composectl: the program's path where the user gave one.
    """

    rounds: int
    scratch: object
    cache: object
    progress: Progress
    composectl: object = None

    def in_turns(self, **variants):
        """Measure each variant ``rounds`` times, in turns, every other round in reverse.

        Arguments:
            variants: name -> function without arguments.

        Returns {name: [what the function returned, …]}.
        """
        results = {name: [] for name in variants}
        for number in range(self.rounds):
            names = list(variants) if number % 2 == 0 else list(reversed(variants))
            for name in names:
                with self.progress.step(f"round {number + 1} of {self.rounds}: {name}"):
                    results[name].append(variants[name]())
        return results


def compare(name, unit, results, variant, than, bar=None, key=lambda result: result):
    """Return the Figure that holds one variant against another.

    Arguments:
        results: what Run.in_turns returned.
        variant, than: names in it.
        key: turns one result into a number in ``unit``.
    """
    samples = {each: [round(key(result), 3) for result in results[each]] for each in (variant, than)}
    middle = {each: statistics.median(values) for each, values in samples.items()}
    return Figure(name, middle[variant], unit, than, middle[than], bar, samples)


def table(rows):
    """Return the lines of a table.

    Arguments:
        rows: (benchmark, Figure) in order.
    """
    head = ("BENCHMARK", "FIGURE", "VALUE", "RANGE", "THAN", "REFERENCE", "RATIO", "BAR", "MET")
    lines = [head, *(_row(benchmark, figure) for benchmark, figure in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    right = {2, 5, 6, 7}

    def aligned(line):
        cells = enumerate(zip(line, widths, strict=True))
        return "  ".join(text.rjust(width) if column in right else text.ljust(width) for column, (text, width) in cells)

    return [aligned(line).rstrip() for line in lines]


def _row(benchmark, figure):
    taken = next(iter(figure.samples.values()), [])
    spread = f"{min(taken):.1f}–{max(taken):.1f}" if len(taken) > 1 else ""
    reference = "" if figure.reference is None else f"{figure.reference:.2f} {figure.unit}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
    bar = "" if figure.bar is None else f"{figure.bar:g}"
    met = {None: "", True: "yes", False: "NO"}[figure.met]
    value = f"{figure.value:.2f} {figure.unit}"
    return (benchmark, figure.name, value, spread, figure.than, reference, ratio, bar, met)


def timed(function):
    """Call ``function``; return the seconds that it took."""
    started = time.monotonic()
    function()
    return time.monotonic() - started
