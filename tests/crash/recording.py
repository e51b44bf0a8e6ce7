# SPDX-License-Identifier: MIT
"""One recording: a base disk, the log of what a workload wrote to it, and what is known of both."""

import json
import random
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from composeapps import durable
from crash import contents, disks
from crash.errors import CrashError
from crash.namespaces import HOME
from crash.place import Place
from crash.recorder import Recorder
from crash.workloads import WORKLOADS
from crash.workloads.base import sync

FACTS = "recording.json"


@dataclass(frozen=True)
class Settings:
    """What varies the timing: ext4's journal in MB, its commit interval in seconds, how much may
    be dirty before the kernel writes (bytes, or None), and for how many seconds nothing is done
    after the work."""

    journal: int
    commit: int
    writeback: int | None
    linger: float

    @classmethod
    def draw(cls, seed):
        """Return those for a seed; some linger past a commit, so that metadata lies on the disk without data."""
        draw = random.Random(f"settings {seed}")
        commit = draw.choice((1, 1, 2, 5))
        return cls(draw.choice((4, 8, 16)), commit, draw.choice((None, None, 4 << 20, 16 << 20)),
                   draw.choice((0.3, min(commit, 2) + 0.5)))


@dataclass(frozen=True)
class Recording:
    """``entries`` of the log count; ``phases`` are [number of the first entry, name], in order."""

    directory: Path
    name: str
    workload: str
    engine: str
    seed: str
    entries: int
    phases: list
    world: contents.World
    settings: Settings

    @property
    def base(self):
        return self.directory / "base.img"

    @property
    def log(self):
        return self.directory / "log.img"

    @property
    def factory(self):
        return self.directory / "factory"

    @property
    def first(self):
        """How many entries had been written when the work began."""
        return next(start for start, name in self.phases if name == "work")

    def phase_of(self, entry):
        """Return in which phase that many entries had been written."""
        names = [name for start, name in self.phases if start <= entry]
        return names[-1] if names else self.phases[0][1]

    def place(self, engine):
        """Return the Place of a state of this recording."""
        return Place(engine, self.world, self.factory, self.seed)

    @classmethod
    def load(cls, directory):
        """Return the Recording in ``directory``; raises CrashError when there is none or it is not complete."""
        directory = Path(directory)
        try:
            facts = json.loads((directory / FACTS).read_text())
            return cls(directory, facts["name"], facts["workload"], facts["engine"], facts["seed"], facts["entries"],
                       facts["phases"], contents.World.load(facts["world"]), Settings(**facts["settings"]))
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise CrashError(f"{directory} holds no complete recording ({err}): record again") from None


def record(engine, workload, name, seed, directory, settings=None):
    """Record a workload.

    Arguments:
        engine: a ChosenEngine.
        workload: a Workload.
        name: of the recording, the first part of its states' names.
        seed: a text that decides what is loaded and how.
        directory: where the recording goes.
        settings: the Settings, None for those that the seed gives.

    Runs in a process that namespaces.enter() prepared. Raises CrashError.
    """
    settings = settings or Settings.draw(seed)
    image = HOME / "disk.img"
    world = contents.build(HOME / "factory", seed, **workload.size)
    place = Place(engine, world, HOME / "factory", seed)
    disks.make(image, settings.journal)
    with disks.mounted(image):
        workload.prepare(place)
        sync(disks.MOUNTPOINT)
    directory = Path(directory)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    disks.copy(image, directory / "base.img")
    recorder = Recorder(engine.qemu, image, HOME, f"commit={settings.commit}", settings.writeback)
    with recorder:
        recorder.mark("start")
        # fsck refuses to work beside a dockerd.
        with engine.daemon() if workload.daemon and not workload.repairs else nullcontext():
            recorder.mark("work")
            workload.record(place)
            recorder.mark("after")
            # Time has to pass, as it does on a device: the journal commits, and the data is still in memory.
            time.sleep(settings.linger)
            sync(disks.MOUNTPOINT)
            recorder.mark("end")
    entries, phases = recorder.marks[-1][0], recorder.marks[:-1]
    disks.copy(recorder.log_path, directory / "log.img")
    shutil.copytree(HOME / "factory", directory / "factory")
    facts = {"name": name, "workload": workload.name, "engine": engine.name, "seed": seed, "entries": entries,
             "phases": phases, "world": world.dump(), "settings": asdict(settings)}
    durable.write_file(directory / FACTS, json.dumps(facts, indent=1).encode() + b"\n")


def workload_of(recording):
    """Return the Workload that was recorded."""
    return WORKLOADS[recording.workload]()
