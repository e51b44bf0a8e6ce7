# SPDX-License-Identifier: MIT
"""The states in which a power cut can leave a logged disk, each with a name that reproduces it.

What was written before a FLUSH is there after a cut; of what was written since, any part can be.
A state's name is the recording's and one of

    flush=F                         everything up to the F-th flush (from 1)
    entry=E                         the first E entries of the log
    flush=F:until=E:drop=N          up to the flush, then to entry E but for the N-th write between
    flush=F:until=E:keep=N          up to the flush, then only the N-th write between it and entry E
    flush=F:until=E:random=SEED     up to the flush, then each write before entry E, or not
    flush=F:until=E:torn=SEED       the same, and some of the writes with only some of their sectors

The log has writes in the order in which they were issued, so one that was still under way when a
flush was issued counts as flushed. ext4 waits for the writes that a flush is to cover before it
issues it: no state is missing that ext4 or a program relies on.

The seeds, and so the names, decide everything: the same name is the same disk.
"""

import random
import re
from dataclasses import dataclass

from crash.blocklog import FUA, SECTOR
from crash.errors import CrashError

KINDS = ("flush", "entry", "drop", "keep", "random", "torn")
# How many of a hundred states are of each kind: flushes leave what a file system commits, the
# others what a disk's cache does with it.
SHARES = {"flush": 36, "entry": 16, "drop": 12, "keep": 10, "random": 16, "torn": 10}
_NAME = re.compile(r"(?:entry=(\d+)|flush=(\d+)(?::until=(\d+):(drop|keep|random|torn)=(\d+))?)\Z")


@dataclass(frozen=True)
class State:
    """``prefix`` entries whole, then ``rest``: (index of an entry, its sectors or None for all)."""

    name: str
    kind: str
    prefix: int
    rest: tuple = ()

    @property
    def end(self):
        """The number of entries that had been written when the power failed."""
        return self.rest[-1][0] + 1 if self.rest else self.prefix


class Enumeration:
    """The states of a log.

    Arguments:
        entries: the log's entries, blocklog.Entry.
        end: how many of them count; what came later was not part of what is to be tried.
        first: how many had been written when that began; ``draw`` gives no states from before.
    """

    def __init__(self, entries, end=None, first=0):
        self.entries, self.first = entries[:end], first
        self.flushes = [index + 1 for index, entry in enumerate(self.entries) if entry.flushes]

    def parse(self, name):
        """Return the State of that name; raises CrashError for one that this log does not have."""
        match = _NAME.match(name)
        if not match:
            raise CrashError(f"'{name}' is no name of a state, such as 'flush=17' or 'flush=17:until=140:drop=3'")
        entry, flush, until, kind, value = match.groups()
        if entry is not None:
            if not 0 <= int(entry) <= len(self.entries):
                raise CrashError(f"the log has {len(self.entries)} entries, so there is no state '{name}'")
            return State(name, "entry", int(entry))
        prefix = self._prefix(int(flush), name)
        if kind is None:
            return State(name, "flush", prefix)
        writes = self._writes(prefix, int(until))
        if not writes or (kind in ("drop", "keep") and int(value) >= len(writes)):
            raise CrashError(f"there are {len(writes)} writes between the flush and entry {until}, so there is no "
                             f"state '{name}'")
        return State(name, kind, prefix, tuple(self._choose(writes, kind, int(value))))

    def _prefix(self, flush, name):
        """Flush 0 is the beginning, before any."""
        if flush > len(self.flushes):
            raise CrashError(f"the log has {len(self.flushes)} flushes, so there is no state '{name}'")
        return self.flushes[flush - 1] if flush else 0

    def _writes(self, prefix, until):
        return [index for index in range(prefix, min(until, len(self.entries))) if self.entries[index].changes]

    def _choose(self, writes, kind, value):
        draw = random.Random(value)
        for number, index in enumerate(writes):
            # Written through: it was durable when the next thing began.
            durable = bool(self.entries[index].flags & FUA)
            if kind == "drop":
                if number != value or durable:
                    yield index, None
            elif kind == "keep":
                if number == value or durable:
                    yield index, None
            elif kind == "random":
                if draw.random() < 0.5 or durable:
                    yield index, None
            else:
                fate, sectors = draw.random(), self.entries[index].length // SECTOR
                if fate < 0.3 or durable:
                    yield index, None
                elif fate < 0.7:
                    some = tuple(number for number in range(sectors) if draw.random() < 0.5)
                    if some:
                        yield index, some

    def draw(self, seed):
        """Yield States without an end, each name once at most, in the proportions of SHARES.

        Ends only when the log has no further state of any kind.
        """
        draw = random.Random(seed)
        prefixes = {
            "flush": [f"flush={number}" for number, place in enumerate(self.flushes, 1) if place > self.first],
            "entry": [f"entry={number}" for number in range(self.first + 1, len(self.entries) + 1)],
        }
        for names in prefixes.values():
            draw.shuffle(names)
        tails = self._tails()
        seen, misses = set(), 0
        while misses < 200:
            kind = draw.choices(KINDS, [SHARES[kind] for kind in KINDS])[0]
            if kind in prefixes:
                name = prefixes[kind].pop() if prefixes[kind] else None
            else:
                name = self._subset(draw, tails, kind)
            if name is None or name in seen:
                misses += 1
                continue
            seen.add(name)
            misses = 0
            yield self.parse(name)

    def _tails(self):
        """Return (number of the flush, prefix, first entry that no longer belongs to it) where there are writes."""
        starts = [0, *self.flushes]
        ends = [*self.flushes, len(self.entries)]
        return [(number, start, end) for number, (start, end) in enumerate(zip(starts, ends, strict=True))
                if end > self.first and any(self.entries[index].changes for index in range(start, end))]

    def _subset(self, draw, tails, kind):
        if not tails:
            return None
        flush, start, end = draw.choice(tails)
        first = next(index for index in range(start, end) if self.entries[index].changes)
        # Half of the cuts come when all of the tail is under way.
        until = end if draw.random() < 0.5 else draw.randrange(first + 1, end + 1)
        writes = self._writes(start, until)
        value = draw.randrange(len(writes)) if kind in ("drop", "keep") else draw.randrange(1 << 32)
        return f"flush={flush}:until={until}:{kind}={value}"


def choose(replay, enumeration, count, seed):
    """Return up to ``count`` (State, fingerprint) whose disks all differ, by rising prefix.

    Arguments:
        replay: a Replay at the beginning of the log; it is at its end afterwards.
        enumeration: the Enumeration of the same log.
    """
    drawn = enumeration.draw(seed)
    # Some are alike, which is known only after the log was gone through once.
    candidates = [state for state, _ in zip(drawn, range(4 * count + 20), strict=False)]
    order = {state.name: number for number, state in enumerate(candidates)}
    found = {}
    for state in sorted(candidates, key=lambda each: each.prefix):
        replay.forward(state.prefix)
        fingerprint = replay.fingerprint(state)
        known = found.get(fingerprint)
        if known is None or order[state.name] < order[known.name]:
            found[fingerprint] = state
    first = sorted(found.items(), key=lambda item: order[item[1].name])[:count]
    return sorted(((state, fingerprint) for fingerprint, state in first), key=lambda item: item[0].prefix)
