# SPDX-License-Identifier: MIT
"""A state as the device finds it at its next boot: mounted, repaired, dockerd started, images loaded."""

import contextlib
import json
import random
import time
from dataclasses import dataclass, field

from composeapps.errors import ComposeAppsError
from crash import disks, trees
from crash.dockerapi import DockerError
from crash.dockertree import DockerTree, chain_ids
from crash.errors import CrashError
from crash.recording import workload_of
from crash.verdicts import HARMLESS, Outcome, judge
from crash.workloads.base import volume_problems
from crash.workloads.repair import FSCK_CLEAN, FSCK_LEFT, FSCK_REPAIRED, run_fsck


@dataclass
class Findings:
    """What is wrong: ``loud`` with somebody being told, ``quiet`` with dockerd saying that all is well."""

    loud: list = field(default_factory=list)
    quiet: list = field(default_factory=list)


class Checker:
    """Checks states of one recording.

    Arguments:
        recording: the Recording.
        engine: the ChosenEngine.
        fsck: whether the store is repaired first.
        share: of the states without visible damage that a dockerd is run on; 1.0 for all.
    """

    def __init__(self, recording, engine, fsck, share=1.0):
        self.recording, self.engine, self.fsck, self.share = recording, engine, fsck, share
        self.workload = workload_of(recording)
        self._known = {}

    def remember(self, outcome):
        """Take over an Outcome from an earlier run: states with the same files need no second look."""
        if outcome.same_as is None:
            self._known.setdefault(outcome.files, outcome)

    def check(self, image, state, fingerprint):
        """Return the Outcome for a states.State whose disk is the file ``image``, which is written to."""
        started = time.monotonic()
        outcome = Outcome(f"{self.recording.name}:{state.name}", self.recording.phase_of(state.end), fingerprint)
        with _mounted(image):
            outcome.files = trees.digest(disks.MOUNTPOINT)
            known = self._known.get(outcome.files)
            if known:
                # Files alone decide what happens next, so what happened to the same files happens again.
                outcome.verdict, outcome.cut, outcome.problems = known.verdict, known.cut, known.problems
                outcome.repairs, outcome.same_as = known.repairs, known.state
            else:
                self._check_files(outcome)
                self._known[outcome.files] = outcome
        outcome.seconds = round(time.monotonic() - started, 3)
        return outcome

    def _check_files(self, outcome):
        place = self.recording.place(self.engine)
        findings = Findings()
        findings.loud += [f"before repair: {text}" for text in (*volume_problems(place), *self.workload.oracle(place))]
        before = DockerTree(place.layout.docker)
        damage = before.problems + before.content_problems()
        outcome.cut = sorted({problem.state for problem in damage})
        if self.fsck:
            self._repair(place, outcome, findings)
        if self.workload.daemon:
            self._check_docker(place, outcome, findings)
        else:
            self._guarded(findings, lambda: self.workload.finish(place))
        findings.loud += volume_problems(place)
        outcome.problems = list(dict.fromkeys(findings.quiet + findings.loud))
        outcome.verdict = judge(outcome.cut, findings.loud, findings.quiet)

    def _guarded(self, findings, action):
        """Add what ``action`` returns, or how it fails, to what is wrong and told."""
        try:
            findings.loud += action()
        except (ComposeAppsError, CrashError, DockerError, OSError) as err:
            findings.loud.append(str(err))

    def _repair(self, place, outcome, findings):
        """Run fsck."""
        status, report, said = run_fsck(place)
        try:
            outcome.repairs = json.loads(report)
        except ValueError:
            outcome.repairs = None
        if outcome.repairs is None or status not in (FSCK_CLEAN, FSCK_REPAIRED, FSCK_LEFT):
            findings.loud.append(f"fsck failed with status {status}: {said.strip()[-600:]}")
        seen = {finding["state"] for finding in (outcome.repairs or {}).get("findings", ())}
        outcome.cut = sorted({*outcome.cut, *seen})
        findings.loud += [f"after fsck: {text}" for text in volume_problems(place)]

    def _check_docker(self, place, outcome, findings):
        tree = DockerTree(place.layout.docker)
        suspicious = tree.content_problems() or any(problem.state not in HARMLESS for problem in tree.problems)
        # The same choice each time a state is checked.
        sampled = random.Random(outcome.state).random() < self.share
        if not suspicious and not sampled and not findings.loud:
            return
        outcome.by_daemon = True
        daemon = self.engine.daemon()
        try:
            daemon.start()
        except AssertionError as err:
            findings.loud.append(f"dockerd does not start: {str(err)[-600:]}")
            return
        try:
            self._check_running(place, findings)
        finally:
            daemon.stop()
        after = DockerTree(place.layout.docker)
        findings.quiet += [f"listed and damaged: {problem}" for problem in after.content_problems()]

    def _check_running(self, place, findings):
        self._guarded(findings, lambda: self.workload.restock(place) or [])
        for name in sorted(place.world.apps):
            self._guarded(findings, lambda name=name: place.load(name) or [])
        self._guarded(findings, lambda: _listed(place))
        for facts in place.world.images:
            self._guarded(findings, lambda facts=facts: _run(place, facts, findings))
        self._guarded(findings, lambda: _start_others(place))
        self._guarded(findings, lambda: self.workload.finish(place))


@contextlib.contextmanager
def _mounted(image):
    """Mount a state as a boot does: with e2fsck before when the file system's superblock was torn."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(disks.mounted(image))
        except CrashError:
            disks.run("e2fsck", "-p", image, check=False)
            stack.enter_context(disks.mounted(image))
        yield


def _listed(place):
    """Return what is wrong with the list of images: each of the world's has to be there with its layers."""
    problems, tree = [], DockerTree(place.layout.docker)
    for facts in place.world.images:
        found = place.docker.image(facts.image_id)
        if (found.get("RootFS") or {}).get("Layers") != facts.diff_ids:
            problems.append(f"dockerd lists {facts.image_id[:19]} with other layers")
        if facts.image_id not in tree.images:
            problems.append(f"dockerd lists {facts.image_id[:19]}, but not all its layers are on the disk")
        problems += [f"dockerd lists layer {chain[:19]}, which is not on the disk"
                     for chain in chain_ids(facts.diff_ids) if chain not in tree.layers]
    return problems


def _run(place, facts, findings):
    """Run a container of an image, which compares all files that it sees; what is wrong goes to ``findings``."""
    docker = place.docker
    container = docker.create(facts.image_id)
    try:
        docker.start(container)
        status = docker.wait(container)
        said = docker.logs(container).strip()
    finally:
        docker.remove(container)
    # The runtime's own words about a program that cannot be executed, or another status than the shell's.
    if status not in (0, 1) or said.startswith("exec "):
        return [f"a container of {facts.reference[:40]} does not start: status {status}, '{said[-200:]}'"]
    if said != facts.says:
        findings.quiet.append(f"a container of {facts.reference[:40]} runs with wrong contents: '{said[-200:]}'")
    return []


def _start_others(place):
    """Start each container that dockerd still has; return the sentences for those that do not start."""
    problems = []
    for listed in place.docker.containers():
        name = (listed.get("Names") or [listed["Id"][:12]])[0]
        try:
            if listed["State"] != "running":
                place.docker.start(listed["Id"])
        except DockerError as err:
            problems.append(f"container {name} does not start: {err}")
    return problems
