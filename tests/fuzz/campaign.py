# SPDX-License-Identifier: MIT
"""Runs a target on many inputs in a process of its own, and tells what came out that must not."""

import mmap
import os
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzz import mutate

# Seconds of CPU that one input may take; seconds without any progress after which a process is ended.
WORK = 2
STUCK = 60
# Address space in bytes on top of what the process has at its begin: an input of a quarter of a megabyte needs no
# gigabyte.
MEMORY = 1 << 30


class Hang(BaseException):
    """An input took more than its share of CPU; no handler of the parser is to catch it."""


class Outside(AssertionError):
    """Something appeared where nothing may."""


@dataclass(frozen=True)
class Finding:
    """Input ``number`` of ``target`` made ``what`` come out, at ``where``; ``times`` inputs did the same."""

    target: str
    number: int
    what: str
    where: str
    times: int = 1

    def dump(self):
        """Return what JSON prints."""
        return asdict(self)

    def line(self):
        """Return it in a line."""
        more = f" ({self.times} inputs)" if self.times > 1 else ""
        return f"{self.target} {self.number}: {self.what} at {self.where}{more}"


def run(target, seed, count, first=0, until=None, traced=False):
    """Run a target on inputs in a process of its own; return (how many, [Finding]).

    Arguments:
        target: a targets.Target.
        seed: decides the inputs.
        count: how many; ``first`` is the number of the first.
        until: time.monotonic() at which to end in any case.
        traced: print the traceback of what must not come out.
    """
    with tempfile.TemporaryDirectory(dir=_memory(), prefix="fuzz-") as place:
        return _run(target, seed, first, first + count, until, Path(place), traced)


def _run(target, seed, first, last, until, place, traced):
    found, done = {}, 0
    while first < last:
        progress = mmap.mmap(-1, 16)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _work(target, seed, first, last, until, progress, write, place, traced)
        os.close(write)
        said = _listen(read, child, progress)
        _pid, status = os.waitpid(child, 0)
        number, ended = struct.unpack("qq", progress[:])
        for one in said:
            key = one.what, one.where
            found[key] = one if key not in found else Finding(**{**found[key].dump(),
                                                                 "times": found[key].times + one.times})
        if ended:
            done += number - first
            break
        if os.WIFEXITED(status):
            raise RuntimeError(f"the campaign's own process failed at input {number} of {target.name}")
        how = signal.Signals(os.WTERMSIG(status)).name
        key = f"the process ended by {how}", "an unknown place"
        times = found[key].times + 1 if key in found else 1
        found[key] = Finding(target.name, found[key].number if key in found else number, *key, times)
        done, first = done + number - first + 1, number + 1
    return done, list(found.values())


def _listen(read, child, progress):
    """Return the Findings that a process tells; end it when it makes no progress."""
    text, seen, since = b"", None, time.monotonic()
    os.set_blocking(read, False)
    while True:
        if select.select([read], [], [], 1)[0]:
            piece = os.read(read, 1 << 16)
            if not piece:
                break
            text += piece
        if progress[:] != seen:
            seen, since = progress[:], time.monotonic()
        elif time.monotonic() - since > STUCK:
            os.kill(child, signal.SIGKILL)
    os.close(read)
    rows = (line.split("\t") for line in text.decode().splitlines())
    return [Finding(row[0], int(row[1]), row[2], row[3], int(row[4])) for row in rows if len(row) == 5]


def _work(target, seed, first, last, until, progress, write, place, traced):
    """The process: never returns."""
    status = 1
    try:
        limit = _address_space() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.signal(signal.SIGPROF, _hang)
        found, number = {}, first
        place = place / str(first)
        place.mkdir()
        check = target.prepare(place)
        for number, data in mutate.inputs(target.name, target.seeds, seed, first):
            if number >= last or (until is not None and time.monotonic() > until):
                break
            progress[:] = struct.pack("qq", number, 0)
            problem = judge(check, data, target.refuses, traced)
            if problem is not None:
                known = found.setdefault(problem, [number, 0])
                known[1] += 1
        with open(write, "w") as stream:
            for (what, where), (one, times) in found.items():
                print(target.name, one, what, where, times, sep="\t", file=stream)
        progress[:] = struct.pack("qq", number, 1)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def judge(check, data, refuses, traced=False):
    """Run one input; return (what, where) for what must not come out, None for all else."""
    signal.setitimer(signal.ITIMER_PROF, WORK)
    try:
        check(data)
    except refuses as err:
        signal.setitimer(signal.ITIMER_PROF, 0)
        text = str(err)
        if "\n" in text or "\x1b" in text or len(text) > 4000:
            return f"{type(err).__name__} with a message that is no clean sentence", _where(err)
    except (Exception, Hang) as err:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if traced:
            traceback.print_exc()
        text = ascii(str(err))[:100] if isinstance(err, Outside) else ""
        return f"{type(err).__name__}{' ' if text else ''}{text}", _where(err)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def _where(err):
    """Return the last place in the package that an exception came by."""
    frames = traceback.extract_tb(err.__traceback__)
    own = [frame for frame in frames if "/composeapps/" in frame.filename] or frames
    frame = own[-1]
    return f"{frame.filename.rpartition('/lib/')[2] or frame.filename}:{frame.lineno} ({frame.name})"


def _hang(_number, _frame):
    raise Hang


def _address_space():
    """Return the bytes of this process's address space, which it has from the process that began the campaign."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _memory():
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
