# SPDX-License-Identifier: MIT
"""How each command's CPU time grows with each axis of scale.axes: the exponent of the size, 1 for in proportion."""

import math
import tempfile
import time
from pathlib import Path

from bench.figures import Figure
from moby.root import engine_root
from scale.axes import AXES
from scale.place import Place
from support.engine import DockerDaemon
from support.registries import open_registry
from support.steps import Stepper, modules

# Above this a command's time does not grow in proportion; sorting and noise are below.
BAR = 1.3
# What grows by less, in seconds, from the smallest size to the largest does not grow as far as can be measured.
LEAST = 0.03
# After so many seconds of an axis no larger size is begun, which would take twice as long; so many there are at least.
ENOUGH, FEWEST = 8, 3
# Commands that find nothing to do when they are given again.
ONCE = ("rm", "pull", "publish", "start", "stop", "update each")


def exponent(sizes, seconds):
    """Return the exponent by which times grow that rise with sizes, each twice the one before; 0 for none to be seen.

    What the smallest size costs is taken off the others first: it is mostly what a command costs in any case. Of
    ``c + a * size ** e`` this leaves ``a * (size ** e - first ** e)``, so the first two that are left are compared with
    the last two by what each doubling adds.
    """
    added = [after - before for before, after in zip(seconds, seconds[1:], strict=False)]
    if seconds[-1] - seconds[0] < LEAST or added[-1] <= 0:
        return 0.0
    # A size that was measured as cheaper than a smaller one tells that nothing was to be seen between them.
    first = max(added[0], LEAST / 2 ** len(added))
    return max(0.0, math.log(added[-1] / first) / math.log(sizes[-1] / sizes[1]))


def scale(run):
    """Yield a Figure for each axis and command: the exponent, with the seconds of CPU at each size."""
    # Where the daemon's root file system has a place for it.
    with tempfile.TemporaryDirectory(prefix="bench-scale-", dir="/tmp") as directory:
        root, base = engine_root(run.progress), Path(directory)
        with DockerDaemon(root, base / "dockerd") as daemon, open_registry(base / "hub") as registry, \
                Stepper(modules()) as stepper:
            for name, axis in ((name, axis) for name, axis in AXES.items() if axis.timed):
                seconds, sizes, begun = {}, [], time.monotonic()
                for size in axis.timed:
                    if len(sizes) >= FEWEST and time.monotonic() - begun > ENOUGH:
                        break
                    sizes.append(size)
                    with run.progress.step(f"{name}: {size}"):
                        place = Place(daemon.directory / f"{name}{size}", daemon, registry, stepper,
                                      f"{name.replace('_', '')}{size}")
                        try:
                            for command, words in axis.make(place, size).items():
                                seconds.setdefault(command, []).append(_measured(run, place, command, words))
                        finally:
                            place.clear()
                for command, each in seconds.items():
                    yield Figure(f"{name}: {command}", round(exponent(sizes, each), 2), "", bar=BAR,
                                 samples={"seconds": [round(value, 3) for value in each], "sizes": sizes})


def _measured(run, place, command, words):
    """Return the least seconds of CPU of some runs of a command; of one that changes what is there, of one run."""
    rounds = 1 if command in ONCE else min(run.rounds, 3)
    return min(place.run(*words).cpu for _ in range(rounds))
