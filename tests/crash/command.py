# SPDX-License-Identifier: MIT
"""The command line of scripts/crash-test."""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError
from crash import engines, run, verdicts
from crash.errors import CrashError
from crash.namespaces import isolated
from crash.recording import Recording
from crash.workloads import WORKLOADS, select
from fastlane.errors import BuildError
from fastlane.progress import Progress

INSIDE = "COMPOSEAPPS_CRASH_INSIDE"
HELP = {
    "examples": (
        ("scripts/crash-test", "60 states of a patched dockerd, repaired"),
        ("scripts/crash-test --engine stock --no-fsck", "what power cuts do to Debian's own dockerd"),
        ("scripts/crash-test --states 1000 --seed 7", "the full run; Ctrl-C, then --resume, goes on with it"),
        ("scripts/crash-test --workload bundle --states 200", "one workload"),
        ("scripts/crash-test --replay load.stock-nofsck.0.0:flush=17 --no-fsck", "one state once more"),
    ),
    "details": (
        "A real dockerd (or the agent) works on an ext4 whose block writes are recorded. From the record the disk is "
        "put together as a power cut could have left it: after each flush, after each write, and with any part of "
        "what was written after the last flush. Each such disk is mounted, repaired by 'composeapps fsck', given to a "
        "dockerd, and loaded from the restorable store; then every layer's digest is computed anew and a container of "
        "each image started. The verdicts:",
        {
            "ok": "nothing was wrong",
            "healed": "something was, and repair and loading made it right",
            "unhealed": "something is still wrong, and an error tells of it",
            "silent": "something is still wrong, and dockerd says that all is well",
        },
        "The last line of the output reads states=N unhealed=N silent=N: distinct states, those of them that are not "
        "healed, and those of these of which nobody is told. Needs root, loop devices and about 2 GB of memory.",
    ),
    "exits": {0: "all were healed", 1: "one was not", 2: "wrong usage, or the test could not be done",
              130: "interrupted; the same command with --resume goes on"},
    "environment": ("COMPOSEAPPS_BUILD", "COMPOSEAPPS_MIRROR", "NO_COLOR"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/crash-test", "Try what power cuts do to dockerd's store, and whether it heals.")
    parser.describe(**HELP)
    parser.add_argument("--engine", choices=engines.NAMES, default="patched", help="which dockerd (default: patched)")
    parser.add_argument("--no-fsck", action="store_true", help="do not repair the store after a cut")
    parser.add_argument("--states", type=_positive, default=60, metavar="N", help="distinct states (default: 60)")
    parser.add_argument("--seed", default="0", metavar="S", help="decides images, timing and states (default: 0)")
    parser.add_argument("--workload", action="append", choices=sorted(WORKLOADS), metavar="NAME",
                        help=f"only this one; may be given again ({', '.join(WORKLOADS)})")
    parser.add_argument("--daemon-check", default="all", metavar="WHICH", type=_share,
                        help="states on which a dockerd runs: all, or so many in a hundred of those without damage to "
                        "be seen (default: all)")
    parser.common.add_argument("--json", nargs="?", const="-", metavar="FILE", help="also all results as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR",
                        help="keep every recording with failing states there; with --replay, the disk of the state")
    parser.add_argument("--replay", metavar="STATE", help="check one state again, of a recording that was kept")
    parser.add_argument("--resume", action="store_true", help="go on with the run that was interrupted")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if not args.seed.replace("-", "").isalnum():
        parser.error("--seed takes letters and digits")
    return args


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("a number of states is at least 1")
    return value


def _share(text):
    value = 100.0 if text == "all" else float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError("'all', or a number from 0 to 100")
    return value / 100


def main(argv, build):
    """Run the command; return its exit status: 0 all healed, 1 not, 2 bad usage or a failure of the harness."""
    args = parse(argv)
    try:
        if os.geteuid():
            raise CrashError("this mounts file systems and runs a dockerd: run it as root, or with sudo")
        engine = engines.find(_engine_name(args), Progress(quiet=bool(os.environ.get(INSIDE))))
        if INSIDE not in os.environ:
            _enter(argv)
        return _replay(args, engine, build) if args.replay else _run(args, engine, build)
    except (CrashError, BuildError, ComposeAppsError) as err:
        print(f"crash-test: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("crash-test: interrupted; the same command with --resume goes on", file=sys.stderr)
        return 130


def _engine_name(args):
    if not args.replay:
        return args.engine
    name = run.engine_of(args.replay.partition(":")[0])
    if name not in engines.NAMES:
        raise CrashError(f"'{args.replay}' is no name of a state, such as 'load.stock.0.0:flush=17'")
    return name


def _enter(argv):
    """Go on as the first process of a PID namespace: nothing that is started here outlives this process."""
    command = [shutil.which("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation",
               "private", sys.executable, sys.argv[0], *argv]
    os.execve(command[0], command, {**os.environ, INSIDE: "1"})


def _run(args, engine, build):
    fsck = not args.no_fsck
    where = build / "crash"
    options = run.Options(
        engine=engine, workloads=select(args.workload, engine.name, fsck), count=args.states, seed=args.seed,
        fsck=fsck, share=args.daemon_check, failures=(args.keep or where / "failures").absolute(),
        directory=where / "runs" / f"{run.label(engine.name, fsck)}-{args.seed}", keep_all=bool(args.keep))
    started = time.monotonic()
    outcomes = run.Run(options, _Meter(args.states)).go(args.resume)
    _print_failures(outcomes, options.failures)
    print("\n".join(verdicts.table(outcomes)))
    sums = {**verdicts.summary(outcomes), "engine": engine.name, "fsck": fsck, "seed": args.seed,
            "seconds": round(time.monotonic() - started, 1)}
    print(f"{sums['by_daemon']} states with a dockerd of their own, the others with the same files as one of these or "
          f"with no need for one; {sums['seconds']:.0f} s")
    _write_json(args.json, {**sums, "outcomes": [each.dump() for each in outcomes]})
    if sums["states"] < args.states:
        print(f"crash-test: only {sums['states']} distinct states could be had", file=sys.stderr)
    print(verdicts.last_line(outcomes))
    return 1 if sums["unhealed"] else 0


def _print_failures(outcomes, failures):
    failed = [each for each in outcomes if each.failed]
    for each in failed[:20]:
        text = "; ".join(line.replace("\n", " ") for line in each.problems)
        print(f"{each.verdict:8} {each.state} ({each.phase}): {text[:300]}")
    if failed:
        more = ", the first 20 are shown" if len(failed) > 20 else ""
        print(f"{len(failed)} states are not healed{more}; recordings are in {failures}, try one again with --replay")


def _write_json(where, document):
    if where == "-":
        print(json.dumps(document))
    elif where:
        try:
            Path(where).write_text(json.dumps(document, indent=1) + "\n")
        except OSError as err:
            raise CrashError(f"{where} cannot be written: {err.strerror}") from None


def _replay(args, engine, build):
    recording_name, _, state = args.replay.partition(":")
    where = build / "crash"
    places = [where / "failures" / recording_name, *(where / "runs").glob(f"*/recordings/{recording_name}")]
    if args.keep:
        places.insert(0, args.keep / recording_name)
    found = [place for place in places if (place / "recording.json").exists()]
    if not found:
        raise CrashError(f"there is no recording '{recording_name}' in {where / 'failures'}: name the directory with "
                         "--keep, or run again with the seed that the name ends with")
    keep = None
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        keep = args.keep.absolute() / f"{args.replay.replace(':', '_')}.img"
    recording = Recording.load(found[0])
    outcome = isolated(run.check_one, recording, engine, state, not args.no_fsck, keep)
    print(f"{outcome.state}: {outcome.verdict}, cut in the phase '{outcome.phase}', "
          f"left by the cut: {' '.join(outcome.cut) or 'nothing'}")
    for line in outcome.problems:
        print(f"  {line}")
    for finding in (outcome.repairs or {}).get("findings") or ():
        print(f"  fsck: {json.dumps(finding)}")
    if keep:
        print(f"the disk as the cut left it: {keep}")
    _write_json(args.json, outcome.dump())
    print(verdicts.last_line([outcome]))
    return 1 if outcome.failed else 0


class _Meter:
    """Says on standard error how far a run is: in place on a terminal, else every ten seconds."""

    def __init__(self, wanted):
        self._wanted, self._started, self._last = wanted, time.monotonic(), 0.0
        self._first = None
        self._terminal = sys.stderr.isatty()

    def __call__(self, outcomes, doing):
        now = time.monotonic()
        if self._first is None:
            self._first = len(outcomes)
        if now - self._last < (0.2 if self._terminal else 10):
            return
        self._last = now
        sums = verdicts.summary(outcomes)
        rate = (len(outcomes) - self._first) / max(now - self._started, 0.1)
        left = f", {max(self._wanted - sums['states'], 0) / rate / 60:.1f} min left" if rate else ""
        text = (f"{sums['states']}/{self._wanted} states, {sums['unhealed']} unhealed, {sums['silent']} silent, "
                f"{rate:.2f} a second{left} ({doing})")
        print(f"\r\033[K{text[:150]}" if self._terminal else f"crash-test: {text}", file=sys.stderr,
              end="" if self._terminal else "\n", flush=True)
