# SPDX-License-Identifier: MIT
"""The kills: what is done to the agent, when, and how the app is judged afterwards.

An app of five services goes to and fro between two good versions, by updates and rollbacks, and gets
a third one that does not become healthy, so that updates go back by themselves. A service keeps its
definition in all of them, and so must keep its container. Another one replaces a file by rename in its
mounted directory all the time, beside a file of the user's and a seed of the bundle.
"""

import os
import random
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field

from composeapps.records import journal
from support.updating import SLEEP, WELL, service, shell

APP = "shop"
OPERATIONS = ("update", "rollback", "broken")
# What the next run may end with: done, or the version before is back.
ENDS_WELL = (0, 14)
# Seconds that any run of the agent may take before it counts as hanging.
LIMIT = 300
UNKNOWN = {**WELL, "interval": "1h"}
MOMENTS = ("before", "between", "after")
# What a user has put into the mounted directory.
MINE = "the user's, for good\n"
_WRITER = ("cat /conf/file; n=0; while :; do n=$$((n + 1)); echo $$n whole > /data/new; "
           "/bin/busybox mv /data/new /data/state; /bin/busybox usleep 20000; done")


@dataclass
class Kill:
    """One kill.

    ``operation`` is one of OPERATIONS; ``moment`` a journal's place, or seconds after the start; ``whole``
    whether docker compose was killed with the agent; ``left`` the journal's step that the next run found,
    ``by`` the command that this was. ``mixed`` and ``down`` are what was wrong in the end.
    """

    operation: str
    moment: str
    whole: bool
    left: str = ""
    by: str = ""
    end: str = ""
    mixed: list = field(default_factory=list)
    down: list = field(default_factory=list)

    def dump(self):
        """Return what JSON prints."""
        return asdict(self)

    def line(self):
        """Return it in a line."""
        how = "agent and compose" if self.whole else "agent"
        verdict = "; ".join([*(f"MIXED: {text}" for text in self.mixed), *(f"DOWN: {text}" for text in self.down)])
        return (f"{self.operation:<9} {self.moment:<22} {how:<18} left {self.left or 'no journal':<13} "
                f"then {self.by:<16} -> {verdict or self.end}")


class Campaign:
    """Kills on one device.

    Arguments:
        device: a support.updating.Device without any app.
        publisher: a support.updating.Publisher.
        seed: decides the moments.
        notify: called with a line of text for each kill.
    """

    def __init__(self, device, publisher, seed=0, notify=lambda text: None):
        self.device, self.notify = device, notify
        self.random = random.Random(seed)
        self.kills = []
        device.configure(soak_time=0, max_failures=1000)
        good = [self._version(publisher, number) for number in ("1", "2")]
        self.good, self.broken = good, self._version(publisher, "3")
        self._finish("update", good[0])
        begun = time.monotonic()
        self._finish("update", good[1])
        taken = time.monotonic() - begun
        # Seconds that a run takes that nobody kills; too long an estimate is corrected when it is met.
        self.duration = {"update": taken, "rollback": taken, "broken": 2 * taken}
        self.kept = device.started(APP)["keeps"]
        self.data = device.compose_root / APP / "data"
        (self.data / "mine").write_text(MINE)
        self.place = self.data.stat().st_ino

    @staticmethod
    def _version(publisher, number):
        # The third one is not well at first, and dies then: nobody has to wait long for what becomes of it.
        run, check = (SLEEP, WELL) if number != "3" else (shell("/bin/busybox sleep 1; exit 3"), UNKNOWN)
        return publisher.version(APP, {
            "keeps": service("keeps"),
            "image": service(f"image {number}", depends_on=["keeps"]),
            "definition": service("definition", run, environment={"NUMBER": number}, healthcheck=check),
            "over": service(f"over {number}", healthcheck=WELL),
            "file": service("file", shell(_WRITER), volumes=["./conf:/conf:ro", "./data:/data"],
                            environment={"SEEN": number}),
            **({f"only{number}": service("only")} if number != "1" else {}),
        }, dict.fromkeys(("conf/file", "data/seed"), f"of version {number}\n"),
            labels={"over": {"composeapps.update.strategy": "hand-over"}})

    def at_each_step(self):
        """Kill the agent at each of the journal's steps, in each operation that comes to it."""
        forth = (journal.FETCHING, journal.FETCHED, journal.INSTALLED, journal.SWITCHING, journal.VERIFYING)
        back = (journal.ROLLING_BACK, journal.ROLLED_BACK)
        for operation in OPERATIONS:
            steps = (*forth, *back) if operation == "broken" else (*forth, journal.COMMITTED)
            for step in steps:
                for moment in MOMENTS:
                    self.at_step(operation, step, moment)
            self.at_step(operation, "removed", "before")
            self.at_step(operation, "removed", "after")

    def at_step(self, operation, step, moment):
        """Kill the agent at one place of its journal."""
        kill = Kill(operation, f"{step}:{moment}", False)
        process = self._start(operation, module="kills.driver", KILL_AT=kill.moment)
        status = self._wait(process)
        if status != -signal.SIGKILL:
            kill.down.append(f"the agent never came to {kill.moment}, it ended with {status}: {process.said}")
        self._judge(kill)

    def at_random(self, count):
        """Kill the agent at so many random moments."""
        done = 0
        while done < count:
            operation = OPERATIONS[done % len(OPERATIONS)]
            whole = bool(self.random.getrandbits(1))
            after = self.random.uniform(0, self.duration[operation])
            process = self._start(operation)
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL) if whole else process.kill()
            if self._wait(process) != -signal.SIGKILL:
                # It was quicker than before: this was no kill.
                self.duration[operation] = after
                self._settle()
                continue
            done += 1
            self._judge(Kill(operation, f"{after:.2f} s", whole))

    def _start(self, operation, module="composeapps.cli.main", **environment):
        current = self.device.installed(APP)
        if operation == "update":
            words = ("update", next(uri for uri in self.good if uri != current))
        elif operation == "broken":
            words = ("update", self.broken)
        else:
            words = ("rollback", APP)
        return self._process(*words, module=module, environment=environment)

    def _process(self, *words, module="composeapps.cli.main", environment=None):
        log = self.device.root / "agent.log"
        with open(log, "w") as stream:
            process = self.device.process(*words, module=module, stdout=stream, stderr=stream, **(
                {"more": environment} if environment else {}))
        process.log = log
        return process

    def _wait(self, process):
        """Wait for the agent; return its exit status. What it said last is in ``process.said``."""
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)
            process.wait()
        process.said = " / ".join(process.log.read_text(errors="replace").splitlines()[-3:])
        return process.returncode

    def _finish(self, *words):
        process = self._process(*words)
        status = self._wait(process)
        if status not in ENDS_WELL:
            raise AssertionError(f"composeapps {' '.join(words)} ended with {status}: {process.said}")

    def _settle(self):
        """Leave nothing unfinished, and the app at a version that has one to go back to."""
        self._finish("update")

    def _judge(self, kill):
        """Have the next run go on, and look at what there is then."""
        entry = journal.read(self.device.states, APP)
        kill.left = entry.step if entry else ""
        words = self.random.choice((("update",), ("run", "--installed")))
        kill.by = " ".join(words)
        process = self._process(*words)
        status = self._wait(process)
        if status not in ENDS_WELL:
            kill.down.append(f"'composeapps {kill.by}' ended with {status}: {process.said}")
        installed = self.device.installed(APP)
        kill.end = {self.good[0]: "version 1", self.good[1]: "version 2"}.get(installed, f"installed is {installed}")
        if installed not in self.good:
            kill.mixed.append(kill.end)
        else:
            for problem in self.device.problems(APP, installed):
                what = kill.down if " is exited" in problem or " has 0 " in problem or " is created" in problem \
                    else kill.mixed
                what.append(problem)
        if self.device.started(APP).get("keeps") != self.kept:
            kill.mixed.append("service keeps, which is the same in all versions, was touched")
            self.kept = self.device.started(APP).get("keeps")
        kill.mixed += self._lost()
        self.kills.append(kill)
        self.notify(kill.line())
        if kill.mixed or kill.down:
            # The next kill is to be judged for itself.
            self._wait(self._process("update"))
            self._wait(self._process("run", "--installed"))
        else:
            self._settle()

    def _lost(self):
        """Return what is not as it must be in the directory that a service has mounted."""
        problems = []
        try:
            if (self.data / "mine").read_text() != MINE:
                problems.append("the user's file has other content")
            if not (self.data / "state").read_text().endswith(" whole\n"):
                problems.append("the file that a service replaces is neither the old nor the new one")
            if self.data.stat().st_ino != self.place:
                problems.append("the mounted directory is another one")
        except OSError as err:
            problems.append(f"{err.filename} is lost: {err.strerror}")
        return problems

    def summary(self):
        """Return the last line."""
        mixed, down = (sum(bool(getattr(kill, which)) for kill in self.kills) for which in ("mixed", "down"))
        return f"kills={len(self.kills)} mixed={mixed} down={down}"

    @property
    def failed(self):
        """Whether any kill left anything but the old or the new version, running."""
        return any(kill.mixed or kill.down for kill in self.kills)
