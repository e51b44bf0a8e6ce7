# SPDX-License-Identifier: MIT
"""What a command does, counted: lines and calls of Python, files opened, bytes read. The same on any machine.

A process that has the agent's modules imported forks for each command, so that no command finds what another
one has left in memory, and none pays for Python's start.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LIB = TESTS.parent / "meta-composeapps" / "lib"
# How many pieces bytes come in, how often somebody looks at a clock or whether dockerd is so far, and what happened in
# the last minute, differs from run to run.
_BY_TIME = ("composeapps/engine/unixhttp.py:", "composeapps/registry/connection.py:", "composeapps/pull/progress.py:",
            "composeapps/registry/transport.py:Response.", "composeapps/engine/loading.py:_import_directory",
            "composeapps/engine/client.py:Engine.recently_ended")
# A pattern is compiled once, when a command first needs it: in so many steps; re.compile itself is counted. So is each
# character quoted for an address.
_ONCE = ("re/_parser.py:", "re/_compiler.py:", "re/_casefix.py:", "urllib/parse.py:_Quoter.")
_OPENING = ("open", "os.listdir", "os.scandir", "os.link", "os.rename", "os.remove", "os.mkdir", "os.chmod",
            "socket.connect", "subprocess.Popen")


@dataclass(frozen=True)
class Steps:
    """A command that has ended.

    ``lines`` is {"composeapps/module.py:function": lines run}, ``calls`` the same of calls, also of other packages'
    functions, ``events`` {audit event: how often}, ``read`` bytes that the process read, ``cpu`` seconds, its
    children's not included.
    """

    status: int
    out: str
    err: str
    cpu: float
    read: int
    lines: dict = field(repr=False)
    calls: dict = field(repr=False)
    events: dict = field(repr=False)

    def counts(self):
        """Return {what: count} of all that is counted."""
        return {**{f"lines of {key}": value for key, value in self.lines.items()},
                **{f"calls of {key}": value for key, value in self.calls.items()},
                **{f"audit event {key}": value for key, value in self.events.items()}, "bytes read": self.read}


class Stepper:
    """Runs commands; a context manager.

    Arguments:
        modules: what is imported before the first one, so that no command is charged with it.
    """

    def __init__(self, modules=()):
        self._modules = modules

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-B", str(Path(__file__)), *self._modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "HOME": "/nonexistent",
                 "PYTHONPATH": f"{LIB}{os.pathsep}{TESTS}", "PYTHONHASHSEED": "0"})
        return self

    def __exit__(self, *_exc):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, *words, counted=True, seconds=0, endpoints="", home="/nonexistent"):
        """Run a command; return its Steps.

        Arguments:
            words: its arguments, ``--config`` among them.
            counted: whether lines and calls are, which takes ten times as long.
            seconds: of CPU, after which the kernel ends it (status -24, that of SIGXCPU); 0 for no end.
            endpoints: the value of COMPOSEAPPS_ENDPOINTS.
            home: the caller's home.
        """
        request = {"words": list(map(str, words)), "counted": counted, "seconds": seconds,
                   "environ": {"COMPOSEAPPS_ENDPOINTS": endpoints, "HOME": str(home)}}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return Steps(**json.loads(self._process.stdout.readline()))


def modules():
    """Return the names of all of the agent's modules that commands may load."""
    sources = sorted((LIB / "composeapps").rglob("*.py"))
    names = (".".join(path.relative_to(LIB).with_suffix("").parts) for path in sources)
    return [name.removesuffix(".__init__") for name in names if "__main__" not in name and "bbfetch" not in name]


def beyond_linear(sizes, counts):
    """Return sentences about what grows faster than the size.

    Arguments:
        sizes: three, of which each is twice the one before.
        counts: the numbers of each size, {what: count}.

    What is linear grows, from the second size to the third, by twice of what it does from the first to the second;
    what is sorted by a little more; a square by four times as much. What does not grow by ten, or by a fiftieth, is not
    judged: who waits for another process does not do the same each time.
    """
    assert [size / sizes[0] for size in sizes] == [1, 2, 4]
    found = []
    for what in sorted(set().union(*counts)):
        if what.split(" of ")[-1].startswith((*_BY_TIME, *_ONCE)):
            continue
        low, middle, high = (each.get(what, 0) for each in counts)
        if high - middle > 2.8 * max(0, middle - low) + 10 + low // 50:
            found.append(f"{what}: {low}, {middle}, {high} at {', '.join(map(str, sizes))}")
    return found


def counted(action, *arguments):
    """Call something in this process; return (what it returns, the lines and calls that it took, as Steps.counts does).
    """
    counting = _Counting()
    counting.begin()
    try:
        result = action(*arguments)
    finally:
        counting.end()
    found = counting.result()
    return result, {**{f"lines of {key}": value for key, value in found["lines"].items()},
                    **{f"calls of {key}": value for key, value in found["calls"].items()}}


def _serve():
    for module in sys.argv[1:]:
        __import__(module)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as report, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            if not (child := os.fork()):
                _command(json.loads(line), report, out, err)
            _pid, status = os.waitpid(child, 0)
            texts = [_text(stream) for stream in (report, out, err)]
        found = json.loads(texts[0] or '{"cpu": 0, "read": 0, "lines": {}, "calls": {}, "events": {}}')
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), "out": texts[1], "err": texts[2], **found}),
              flush=True)


def _text(stream):
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _command(request, report, out, err):
    """Run a command in this process, which ends then."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.environ.update(request["environ"])
    if request["seconds"]:
        resource.setrlimit(resource.RLIMIT_CPU, (request["seconds"], request["seconds"] + 1))
    from composeapps.cli.main import main

    counting = _Counting() if request["counted"] else None
    if counting:
        sys.addaudithook(counting.audit)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    before, used = _read(), resource.getrusage(resource.RUSAGE_SELF)
    if counting:
        counting.begin()
    try:
        status = main(request["words"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        if counting:
            counting.end()
        sys.excepthook(*sys.exc_info())
        status = 70
    if counting:
        counting.end()
    after = resource.getrusage(resource.RUSAGE_SELF)
    sys.stdout.flush()
    sys.stderr.flush()
    report.write(json.dumps({
        "cpu": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, "read": _read() - before,
        **(counting.result() if counting else {"lines": {}, "calls": {}, "events": {}})}).encode())
    report.flush()
    os._exit(status)


def _read():
    """Return the bytes that this process has read, by any way."""
    return int(Path("/proc/self/io").read_text().split()[1])


class _Counting:
    """Counts what this process does between ``begin`` and ``end``."""

    def __init__(self):
        self._lines, self._calls, self._events, self._on = Counter(), Counter(), Counter(), False
        # Bound once: it is what each line comes to.
        self._count = self._line

    def audit(self, event, _arguments):
        if self._on and event in _OPENING:
            self._events[event] += 1

    def begin(self):
        self._on, self._before = True, sys.gettrace()
        threading.settrace(self._call)
        sys.settrace(self._call)

    def end(self):
        sys.settrace(self._before)
        threading.settrace(None)
        self._on = False

    def _call(self, frame, _event, _argument):
        code = frame.f_code
        self._calls[code] += 1
        return self._count if "/composeapps/" in code.co_filename else None

    def _line(self, frame, event, _argument):
        if event == "line":
            self._lines[frame.f_code] += 1
        return self._count

    def result(self):
        return {"lines": _named(self._lines), "calls": _named(self._calls), "events": dict(self._events)}


def _named(counts):
    """Return {place: count} of {code object: count}."""
    found = Counter()
    for code, count in counts.items():
        path = code.co_filename
        short = path[path.rindex("/composeapps/") + 1:] if "/composeapps/" in path else "/".join(path.split("/")[-2:])
        found[f"{short}:{getattr(code, 'co_qualname', code.co_name)}"] += count
    return found


if __name__ == "__main__":
    _serve()
