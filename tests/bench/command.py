# SPDX-License-Identifier: MIT
"""The command line of scripts/bench."""

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from bench import BENCHMARKS, BESIDE
from bench.figures import BenchError, Run, table
from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError
from fastlane.errors import BuildError
from fastlane.progress import Progress

INSIDE = "COMPOSEAPPS_BENCH_INSIDE"
HELP = {
    "examples": (
        ("scripts/bench", "all of them"),
        ("scripts/bench load-durable --rounds 7", "one, measured more often"),
        ("scripts/bench scale --rounds 1 --json", "how each command's time grows, with the times"),
        ("scripts/bench --list", ""),
        ("scripts/bench --json figures.json --check", ""),
        ("scripts/bench --composectl ./composectl", "beside that program, which is yours to bring"),
    ),
    "details": (
        "Each benchmark measures what it compares in turns, in one run, and prints the ratio, the bar that it is to "
        "keep and whether it is met. Needs root, loop devices and 5 GB of disk; figures of a machine that is busy "
        "mean little.",
    ),
    "exits": {0: "done, whatever the figures", 1: "a bar is not met, and --check was given",
              2: "wrong usage, or it could not be measured", 130: None},
    "environment": ("COMPOSEAPPS_BUILD", "NO_COLOR"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/bench", "Measure what loading and checking images costs, side by side.")
    parser.describe(**HELP)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"benchmarks (default: all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--list", action="store_true", help="say what there is, and stop")
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N",
                        help="how often each variant is timed (default: 5)")
    parser.common.add_argument("--json", nargs="?", const="-", metavar="FILE",
                        help="also write the figures there as JSON; without FILE to standard output, with no table")
    parser.add_argument("--composectl", metavar="FILE", type=Path,
                        help=f"measure beside this program: {', '.join(BESIDE)} instead of the others, or any by NAME")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a bar is not met")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in BENCHMARKS and name not in BESIDE]
    if unknown:
        parser.error(f"there is no benchmark '{unknown[0]}': see --list")
    lacking = [name for name in args.names if name in BESIDE and args.composectl is None]
    if lacking:
        parser.error(f"'{lacking[0]}' measures beside composectl: give one with --composectl FILE")
    if args.composectl is not None:
        if not os.access(args.composectl, os.X_OK) or args.composectl.is_dir():
            parser.error(f"--composectl {args.composectl} is not a program")
        args.composectl = args.composectl.resolve()
    return args


def _positive(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 upwards")
    return int(text)


def main(argv, build):
    """Run the command; return its exit status: 0 done, 1 a bar is not met and --check was given, 2 not run."""
    args = parse(argv)
    if args.list:
        for name, (_module, _function, text) in {**BENCHMARKS, **BESIDE}.items():
            print(f"{name:16}{text}")
        return 0
    try:
        if os.geteuid():
            raise BenchError("this mounts file systems and runs a dockerd: run it as root, or with sudo")
        if INSIDE not in os.environ:
            _enter(argv)
        rows = _run(args, Path(build))
    except (BenchError, BuildError, ComposeAppsError, AssertionError) as err:
        print(f"bench: {err}", file=sys.stderr)
        return 2
    except OSError as err:
        print(f"bench: {err.filename or ''}: {err.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    _report(args, rows)
    return 1 if args.check and any(figure.met is False for _, figure in rows) else 0


def _enter(argv):
    """Go on in mounts of one's own: whatever ends this, its disks end with it, and nobody else holds them."""
    command = [shutil.which("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation",
               "private", sys.executable, sys.argv[0], *argv]
    os.execve(command[0], command, {**os.environ, INSIDE: "1"})


def _run(args, build):
    scratch, cache = build / "bench", build / "cache" / "bench"
    for directory in (scratch, cache):
        directory.mkdir(parents=True, exist_ok=True)
    rows, progress = [], Progress()
    known = {**BENCHMARKS, **BESIDE}
    for name in args.names or (BESIDE if args.composectl else BENCHMARKS):
        module, function, text = known[name]
        progress.say(f"{name}: {text}")
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            run = Run(args.rounds, Path(directory), cache, progress, args.composectl)
            figures = getattr(importlib.import_module(f"bench.{module}"), function)(run)
            rows += [(name, figure) for figure in figures]
    return rows


def _report(args, rows):
    document = {
        "machine": {"kernel": platform.release(), "processors": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
        "rounds": args.rounds,
        "figures": [{"benchmark": name, **figure.dump()} for name, figure in rows],
    }
    if args.json != "-":
        print("\n".join(table(rows)))
    if args.json == "-":
        print(json.dumps(document, indent=1))
    elif args.json:
        Path(args.json).write_text(json.dumps(document, indent=1) + "\n")
