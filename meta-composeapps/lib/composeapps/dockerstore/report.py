# SPDX-License-Identifier: MIT
"""What a run found and did, for people and for programs."""

import errno
import os

CLEAN, REPAIRED, DAMAGED = "clean", "repaired", "damaged"
EXIT_CODES = {CLEAN: 0, DAMAGED: 4, REPAIRED: 10}


class Finding:
    """One thing that is wrong.

    ``state`` is the letter of the kind of damage (see STATES); ``thing`` names what is damaged;
    ``problem`` says what is wrong with it; ``repair`` what was, or would be, done, None when nothing
    can be; ``done`` is True once it was done, False when it was not or failed, None in a dry run.
    """

    __slots__ = ("state", "thing", "problem", "repair", "done")

    def __init__(self, state, thing, problem, repair=None):
        self.state, self.thing, self.problem, self.repair = state, thing, problem, repair
        self.done = False

    def to_json(self):
        """Return a mapping."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self):
        if self.done:
            outcome = f": {self.repair}"
        elif self.done is None:
            outcome = f"; to do: {self.repair}" if self.repair else "; nothing can be done here"
        else:
            outcome = f"; not done: {self.repair}" if self.repair else "; left as it is"
        return f"[{self.state}] {self.thing} {self.problem}{outcome}"


STATES = {
    "A": "files in a layer are not what the layer's digest says",
    "B": "a layer's metadata is unreadable",
    "C": "a layer's directory in overlay2 is missing",
    "D": "a layer's short name is missing",
    "E": "a layer's list of lower directories is missing or wrong",
    "F": "a short name's symbolic link is missing or wrong",
    "G": "a layer's parent is missing",
    "H": "an image's layers are missing",
    "I": "an image's configuration is damaged",
    "J": "the list of tags is unreadable",
    "K": "what dockerd remembers of registries is unreadable",
    "L": "a container's mount metadata is unreadable",
    "M": "a container and its writable layer do not go together",
    "N": "a database of dockerd is damaged",
    "O": "something was left over",
}


class Report:
    """The outcome of a run; ``status`` is "clean", "repaired" or "damaged"."""

    def __init__(self, data_root, dry_run=False, background=False):
        self.data_root, self.dry_run, self.background = data_root, dry_run, background
        self.findings = []
        self.layers = self.images = self.containers = 0
        self.verified = self.known = 0
        self.unverified = []
        self.lost = None
        self.seconds = 0.0
        self.note = None

    @property
    def status(self):
        if not self.findings:
            return CLEAN
        return REPAIRED if all(finding.done for finding in self.findings) else DAMAGED

    @property
    def exit_code(self):
        """The exit status of the command."""
        return EXIT_CODES[self.status]

    def to_json(self):
        """Return a mapping."""
        return {
            "data_root": self.data_root, "status": self.status, "dry_run": self.dry_run,
            "background": self.background, "layers": self.layers, "images": self.images,
            "containers": self.containers, "verified": self.verified, "known": self.known,
            "unverified": self.unverified, "lost": self.lost, "seconds": round(self.seconds, 3), "note": self.note,
            "findings": [finding.to_json() for finding in self.findings],
        }

    def sentences(self):
        """Return the lines for the journal or a terminal, the summary last."""
        lines = [str(finding) for finding in self.findings]
        if self.lost:
            lines.append(f"what was set aside lies in {self.lost}")
        if self.note:
            lines.append(self.note)
        outcome = {CLEAN: "clean", REPAIRED: "repaired", DAMAGED: "damage is left"}[self.status]
        if self.status == DAMAGED and self.dry_run:
            outcome = "damaged, nothing was changed"
        counts = f"{self.layers} layers, {self.images} images, {self.containers} containers"
        content = f"{self.verified} layers read, {self.known} read before"
        if self.unverified:
            content += f", {len(self.unverified)} left to the background check"
        lines.append(f"{self.data_root}: {outcome} ({counts}; {content}; {self.seconds:.2f} s)")
        return lines


def reason(err):
    """Return an exception as part of a sentence."""
    if isinstance(err, OSError):
        if err.errno == errno.ELOOP:
            return "is a symbolic link"
        return err.strerror or (os.strerror(err.errno) if err.errno else str(err))
    return str(err) or type(err).__name__
