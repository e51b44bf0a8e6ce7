# SPDX-License-Identifier: MIT
"""What is said of a state, and the sums of it."""

from collections import Counter
from dataclasses import asdict, dataclass, field

OK, HEALED, UNHEALED, SILENT = "ok", "healed", "unhealed", "silent"
# Found after any cut and repaired by whatever comes next; they do not make a state damaged.
HARMLESS = frozenset("HO")


@dataclass
class Outcome:
    """The verdict on one state.

    ok: nothing was wrong, or nothing but what dockerd was in the middle of.
    healed: something was, and repair and a load from the restorable store made it right.
    unhealed: something is still wrong, and somebody is told: an error, a container that does not start.
    silent: something is still wrong, and dockerd says that all is well.

    ``cut`` has the letters of the states that the cut left, as dockertree or fsck saw them; ``problems`` says what is
    wrong at the end, ``repairs`` is fsck's report; ``by_daemon`` whether a dockerd ran on it; ``files`` is a digest
    of all files, ``same_as`` names the state with the same files whose verdict this is; ``seconds`` is
    what it took.
    """

    state: str
    phase: str
    fingerprint: str
    files: str = ""
    verdict: str = OK
    cut: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    repairs: dict | None = None
    by_daemon: bool = False
    same_as: str | None = None
    seconds: float = 0.0

    @property
    def failed(self):
        """Whether something is wrong at the end."""
        return self.verdict in (UNHEALED, SILENT)

    @property
    def workload(self):
        """The name of the workload."""
        return self.state.partition(".")[0]

    def dump(self):
        """Return it as what JSON can hold."""
        return asdict(self)


def judge(cut, loud, quiet):
    """Return the verdict.

    Arguments:
        cut: the letters of the states after the cut.
        loud, quiet: what is wrong at the end, with and without anybody being told.
    """
    if quiet:
        return SILENT
    if loud:
        return UNHEALED
    return HEALED if set(cut) - HARMLESS else OK


def summary(outcomes):
    """Return {"states", "unhealed", "silent", "healed", "ok", "distinct_files", "by_daemon"}.

    ``unhealed`` counts the silent ones too: they are not healed either.
    """
    count = Counter(each.verdict for each in outcomes)
    return {
        "states": len({each.fingerprint for each in outcomes}),
        "unhealed": count[UNHEALED] + count[SILENT],
        "silent": count[SILENT],
        "healed": count[HEALED],
        "ok": count[OK],
        "distinct_files": sum(each.same_as is None for each in outcomes),
        "by_daemon": sum(each.by_daemon for each in outcomes),
    }


def table(outcomes):
    """Return the lines of a table: a row a workload, and which states the cuts left."""
    groups = {}
    for each in outcomes:
        groups.setdefault(each.workload, []).append(each)
    lines = [f"{'workload':14} {'states':>6} {'ok':>6} {'healed':>6} {'unhealed':>8} {'silent':>6}  left by the cuts"]
    for name, members in [*sorted(groups.items()), ("all", list(outcomes))]:
        sums, letters = summary(members), Counter(letter for each in members for letter in each.cut)
        left = " ".join(f"{letter}:{number}" for letter, number in sorted(letters.items()))
        lines.append(f"{name:14} {sums['states']:6} {sums['ok']:6} {sums['healed']:6} {sums['unhealed']:8} "
                     f"{sums['silent']:6}  {left}")
    return lines


def last_line(outcomes):
    """Return the line that programs read."""
    sums = summary(outcomes)
    return f"states={sums['states']} unhealed={sums['unhealed']} silent={sums['silent']}"
