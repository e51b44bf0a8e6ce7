# SPDX-License-Identifier: MIT
"""What the checks found, and the record by which --resume leaves out what passed already."""

import enum
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from composeapps import durable


class Status(enum.StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    UNREACHED = "unreached"  # What it needs could not be had: says nothing about the layer.


@dataclass
class Result:
    """One check of one subject.

    Arguments:
        check: the name of the check, as --only takes it.
        subject: what was checked: a combination, or the layer.
        status: a Status.
        summary: one line for the table.
        seconds: how long it took.
        counts: figures by name, for programs.
        problems: what is wrong, a line or a few each.
        log: the file that holds the whole output, or None.
        reused: it comes from the record.
    """

    check: str
    subject: str
    status: Status
    summary: str
    seconds: float = 0.0
    counts: dict = field(default_factory=dict)
    problems: list = field(default_factory=list)
    log: str | None = None
    reused: bool = False

    def as_json(self):
        """Return the result as plain data."""
        return {**asdict(self), "status": str(self.status), "seconds": round(self.seconds, 1)}


def fingerprint(top, paths, *more):
    """Return a short digest of the files under ``paths`` (relative to ``top``) and of the texts ``more``.

    Names and contents count, times do not: a commit that touches nothing else keeps it.
    """
    digest = hashlib.sha256()
    for path in sorted({found for name in paths for found in _files(Path(top) / name)}):
        digest.update(f"{path}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for text in more:
        digest.update(f"{len(text)}\0{text}".encode())
    return digest.hexdigest()[:24]


def _files(path):
    if path.is_file():
        return [path]
    return [found for found in path.rglob("*") if found.is_file() and "__pycache__" not in found.parts]


class Record:
    """The results of earlier runs, in one JSON file.

    Arguments:
        path: the file; it need not exist, and a damaged one counts as empty.
    """

    def __init__(self, path):
        self._path = Path(path)
        try:
            self._entries = json.loads(self._path.read_text())
            if not isinstance(self._entries, dict):
                self._entries = {}
        except (OSError, ValueError):
            self._entries = {}

    def passed(self, check, subject, inputs):
        """Return the Result of a check that passed with the same ``inputs`` (a fingerprint), or None."""
        entry = self._entries.get(f"{check} {subject}")
        if not isinstance(entry, dict) or entry.get("inputs") != inputs or entry.get("status") != Status.PASSED:
            return None
        known = {name: entry[name] for name in ("summary", "seconds", "counts", "problems", "log") if name in entry}
        return Result(check, subject, Status.PASSED, reused=True, **known)

    def add(self, result, inputs):
        """Keep ``result`` for later runs."""
        self._entries[f"{result.check} {result.subject}"] = {"inputs": inputs, **result.as_json()}
        durable.make_directories(self._path.parent)
        durable.write_file(self._path, json.dumps(self._entries, indent=1).encode())
