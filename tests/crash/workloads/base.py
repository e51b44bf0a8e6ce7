# SPDX-License-Identifier: MIT
"""What all workloads share: the disk that a recording starts from."""

import os
from pathlib import Path

from composeapps import durable
from crash import contents, trees
from crash.errors import CrashError

VOLUME = "kept"


class Workload:
    """One kind of work whose writes are recorded. A new one sets ``name`` and has ``record``.

    ``daemon``: a dockerd runs meanwhile, and the states are checked with one. ``engines``: those for
    which it makes sense. ``preloaded``: how many of the world's images dockerd has from the start.
    ``repairs``: it is about fsck. ``size``: keyword arguments of contents.build.
    """

    name = ""
    daemon = True
    engines = ("stock", "patched")
    preloaded = 1
    repairs = False
    size = {}

    def prepare(self, place):
        """Fill the disk, which is mounted and empty, before the recording: what is here is durable."""
        contents.fill_store(place.factory, place.layout.store)
        if self.daemon:
            with place.engine.daemon():
                for name in sorted(place.world.apps)[:self.preloaded]:
                    place.load(name)
                self.fill_daemon(place)

    def fill_daemon(self, place):
        """Bring more into the dockerd that ``prepare`` runs."""
        place.docker.create_volume(VOLUME)
        data = place.layout.docker / "volumes" / VOLUME / "_data"
        draw = place.draw("volume")
        for number in range(6):
            durable.write_file(data / f"record{number}", draw.randbytes(draw.randrange(1, 200_000)))
        place.world.volumes[VOLUME] = trees.sums(data)

    def record(self, place):
        """Do the work; the daemon runs and every write is recorded."""
        raise NotImplementedError

    def oracle(self, place):
        """Return what is wrong on the disk after a cut, after repair and before a dockerd runs: sentences.

        For promises that must hold at any moment.
        """
        return []

    def restock(self, place):
        """Give the store what the checks load, where the work has taken it away."""

    def finish(self, place):
        """Do the work again, or what a device does after its reboot; return what is wrong then."""
        return []


def volume_problems(place):
    """Return a sentence for each file of a named volume that is not what was synced into it."""
    problems = []
    for volume, files in place.world.volumes.items():
        data = place.layout.docker / "volumes" / volume / "_data"
        found = trees.sums(data) if data.is_dir() else {}
        problems += [f"volume {volume}: {path} {'has other content' if path in found else 'is gone'}"
                     for path, digest in files.items() if found.get(path) != digest]
    return problems


def expect(place, *words, env=None):
    """Run a command of the agent that has to succeed; return the sentence that says how it failed, if it did."""
    try:
        place.agent(*words, env=env)
    except CrashError as err:
        return [str(err)]
    return []


def sync(path):
    """Write out all that is in memory of the file system of ``path``."""
    durable.sync_filesystem(Path(os.fspath(path)))
