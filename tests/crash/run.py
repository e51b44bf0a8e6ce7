# SPDX-License-Identifier: MIT
"""A run: recordings are made, states chosen and checked, by two processes at a time; it can be taken up again."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from composeapps import durable
from crash import disks, replay, states
from crash.blocklog import BlockLog
from crash.check import Checker
from crash.errors import CrashError
from crash.namespaces import HOME, Child, isolated
from crash.recording import Recording, record
from crash.verdicts import Outcome

WORKERS = 2
# A recording gives only so many states that differ; more of them differ more.
STATES_PER_RECORDING = 30
MAX_ROUNDS = 40
# Of the recordings with failing states, how many of a workload are kept unless all are asked for: the last ones.
KEPT = 3


def label(engine, fsck):
    """Return what names an engine and whether the store is repaired; ``engine_of`` undoes it."""
    return engine if fsck else f"{engine}-nofsck"


def engine_of(recording):
    """Return the name of the engine in the name of a recording, or None."""
    parts = recording.split(".")
    return parts[1].removesuffix("-nofsck") if len(parts) == 4 else None


@dataclass
class Options:
    """What a run does.

    ``engine``: a ChosenEngine. ``workloads``: the Workloads. ``count``: how many distinct states are
    wanted. ``seed``: a text. ``fsck``, ``share``: see check.Checker. ``directory``: where it keeps
    what is needed to go on. ``failures``: where recordings with failing states go. ``keep_all``:
    whether all of them do.
    """

    engine: object
    workloads: list
    count: int
    seed: str
    fsck: bool
    share: float
    directory: Path
    failures: Path
    keep_all: bool = False

    @property
    def label(self):
        """The second part of the recordings' names."""
        return label(self.engine.name, self.fsck)


@dataclass
class Job:
    """``count`` states of one recording, ``known`` being those that an earlier run has checked."""

    workload: object
    name: str
    seed: str
    count: int
    known: list = field(default_factory=list)
    outcomes: list = field(default_factory=list)


class Run:
    """The run that Options describe.

    Arguments:
        options: the Options.
        report: called with (list of all Outcomes, a text that says what is being done).
    """

    def __init__(self, options, report):
        self.options, self.report = options, report
        self.results = options.directory / "results.jsonl"
        self.outcomes = []
        self._jobs = {}

    def go(self, resume=False):
        """Check until there are as many states as wanted, or no more can be had; return the Outcomes."""
        options = self.options
        if not resume:
            shutil.rmtree(options.directory, ignore_errors=True)
        durable.make_directories(options.directory)
        if resume:
            self._read_results()
        number = 0
        while (missing := options.count - self._distinct()) > 0 and number < MAX_ROUNDS:
            before = self._distinct()
            self._round(number, missing)
            if self._distinct() == before and number > 2:
                break
            number += 1
        return self.outcomes

    def _distinct(self):
        return len({each.fingerprint for each in self.outcomes})

    def _read_results(self):
        try:
            lines = self.results.read_text().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                self.outcomes.append(Outcome(**json.loads(line)))
            except (ValueError, TypeError):
                # The last line of an interrupted run.
                continue

    def _round(self, number, missing):
        """Take states from one more recording of each workload."""
        shares, jobs = self._shares(missing), []
        for workload in self.options.workloads:
            share = shares[workload.name]
            name = f"{workload.name}.{self.options.label}.{self.options.seed}.{number}"
            known = [each for each in self.outcomes if each.state.partition(":")[0] == name]
            if share:
                jobs.append(Job(workload, name, f"{self.options.seed}.{number}.{workload.name}",
                                min(share + len(known), max(STATES_PER_RECORDING, len(known))), known))
        waiting, running = [job for job in jobs if self._unfinished(job)], {}
        try:
            while waiting or running:
                while waiting and len(running) < WORKERS:
                    job = waiting.pop(0)
                    child = Child(_work, self.options, job)
                    running[child.connection] = child, job
                self.report(self.outcomes, ", ".join(job.name for _, job in running.values()))
                for connection in wait(list(running)):
                    self._receive(running, connection)
        finally:
            for child, _ in running.values():
                child.kill()

    def _shares(self, missing):
        """Return {workload: how many more states}: first as many of each, then what some could not give of all."""
        names = [workload.name for workload in self.options.workloads]
        quota, rest = divmod(self.options.count, len(names))
        have = Counter(each.workload for each in self.outcomes)
        shares = {name: max(0, quota + (index < rest) - have[name]) for index, name in enumerate(names)}
        if not any(shares.values()) or sum(shares.values()) > missing + len(names):
            shares = {name: -(-missing // len(names)) for name in names}
        return shares

    def _unfinished(self, job):
        """Whether states of that recording are to be checked: it is there no longer when all were."""
        return not job.known or (self._place(job) / "recording.json").exists()

    def _place(self, job):
        return self.options.directory / "recordings" / job.name

    def _receive(self, running, connection):
        child, job = running[connection]
        try:
            outcome = Outcome(**child.receive())
        except EOFError:
            del running[connection]
            self._finish(job)
            return
        except CrashError as err:
            del running[connection]
            raise CrashError(f"{job.name}: {err}") from None
        with open(self.results, "a") as stream:
            stream.write(json.dumps(outcome.dump()) + "\n")
        self.outcomes.append(outcome)
        job.outcomes.append(outcome)
        self.report(self.outcomes, ", ".join(each.name for _, each in running.values()))

    def _finish(self, job):
        """Keep a recording that has failing states; others have served their purpose."""
        place, failed = self._place(job), [each for each in (*job.known, *job.outcomes) if each.failed]
        if not failed:
            shutil.rmtree(place, ignore_errors=True)
            return
        failures = self.options.failures
        durable.make_directories(failures)
        target = failures / job.name
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(place, target)
        text = json.dumps([each.dump() for each in failed], indent=1)
        durable.write_file(target / "failed.json", text.encode() + b"\n")
        if not self.options.keep_all:
            alike = failures.glob(f"{job.workload.name}.{self.options.label}.*")
            for old in sorted(alike, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
                shutil.rmtree(old)


def _work(send, options, job):
    """Record what is not recorded yet, then check the states that are not checked yet."""
    directory = options.directory / "recordings" / job.name
    if not (directory / "recording.json").exists():
        # In mounts of its own, which end with it: the memory that its disk takes is free afterwards.
        isolated(record, options.engine, job.workload, job.name, job.seed, directory)
    recording = Recording.load(directory)
    checker = Checker(recording, options.engine, options.fsck, options.share)
    for outcome in job.known:
        checker.remember(outcome)
    done = {each.state for each in job.known}
    with BlockLog(recording.log) as log:
        enumeration = states.Enumeration(log.entries, recording.entries, recording.first)
        with replay.Replay(recording.base, log, HOME) as planned:
            chosen = states.choose(planned, enumeration, job.count, job.seed)
        with replay.Replay(recording.base, log, HOME) as disk:
            for state, fingerprint in chosen:
                if f"{recording.name}:{state.name}" in done:
                    continue
                disk.make(state, HOME / "state.img")
                outcome = checker.check(HOME / "state.img", state, f"{fingerprint:032x}")
                send(outcome.dump())


def check_one(recording, engine, name, fsck, keep=None):
    """Make one state of a Recording again and check it; return its Outcome.

    Arguments:
        recording: the Recording.
        engine: the ChosenEngine.
        name: the state's name without the recording's.
        fsck: whether to repair first.
        keep: a file that gets the disk as the cut left it, or None.

    Runs in a process that namespaces.enter() prepared.
    """
    with BlockLog(recording.log) as log:
        state = states.Enumeration(log.entries, recording.entries).parse(name)
        with replay.Replay(recording.base, log, HOME) as disk:
            fingerprint = disk.make(state, HOME / "state.img")
    if keep:
        disks.copy(HOME / "state.img", keep)
    return Checker(recording, engine, fsck).check(HOME / "state.img", state, f"{fingerprint:032x}")
