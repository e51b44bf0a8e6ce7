# SPDX-License-Identifier: MIT
"""The command line of scripts/fuzz."""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from composeapps.cli.parser import Parser
from fuzz import campaign, mutate
from fuzz.targets import TARGETS

INPUTS = 1_000_000
# Seconds between two lines about how far it is.
_TELL = 10
# Inputs that one process works on before the next turn of all targets.
TURN = 5000
HELP = {
    "examples": (
        ("scripts/fuzz", ""),
        ("scripts/fuzz bundle compose --inputs 20000 --seed 7", ""),
        ("scripts/fuzz --time 600", ""),
        ("scripts/fuzz bundle --seed 7 --only 1234 --save input.tgz", ""),
    ),
    "details": (
        "Each target is a parser of something that others write: registries, publishers, dockerd, a damaged disk. It "
        "is given inputs that are right but for a few changes. Whatever the input, nothing may come out but the "
        "package's own errors, each with a message of one clean line; an input may cost two seconds of CPU and a "
        "gigabyte of memory; and nothing may appear outside of where it belongs.",
        "What is found is told with the number of the input, which --only makes again. The last line of the output "
        "reads inputs=N findings=N.",
    ),
    "exits": {0: "nothing was found", 1: "something was", 2: "wrong usage"},
}


def make_parser():
    """Return the Parser of the command."""
    names = [target.name for target in TARGETS]
    parser = Parser("scripts/fuzz", "Try the parsers of what others write on many odd inputs.")
    parser.describe(**HELP)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(names)}")
    parser.add_argument("--inputs", type=_count, default=INPUTS, metavar="N",
                        help=f"inputs in all (default: {INPUTS})")
    parser.add_argument("--time", type=_count, metavar="SECONDS", help="end after so long, whatever is left")
    parser.add_argument("--seed", default="0", metavar="S", help="decides the inputs (default: 0)")
    parser.add_argument("--jobs", type=_count, default=len(os.sched_getaffinity(0)), metavar="N",
                        help="processes side by side (default: one a core)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this one input of one target, with a traceback")
    parser.add_argument("--save", metavar="FILE", help="with --only: write the input there")
    parser.common.add_argument("--json", action="store_true", help="the findings as JSON as well")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser, names = make_parser(), [target.name for target in TARGETS]
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.targets) - set(names)):
        parser.error(f"no target is called {unknown[0]}; there are {', '.join(names)}")
    if args.only is not None and len(args.targets) != 1:
        parser.error("--only takes the input of one target: name it")
    if not args.jobs:
        parser.error("--jobs 0 would do nothing")
    return args


def _count(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number")
    return int(text)


def main(argv):
    """Run the command; return its exit status."""
    args = parse(argv)
    targets = [target for target in TARGETS if not args.targets or target.name in args.targets]
    if args.only is not None:
        return _once(targets[0], args)
    done, findings = run(targets, args.seed, args.inputs, args.jobs, args.time, _tell)
    for finding in findings:
        print(finding.line())
    if args.json:
        print(json.dumps([finding.dump() for finding in findings], indent=1))
    print(f"inputs={done} findings={len(findings)}")
    return 1 if findings else 0


def _tell(text):
    print(f"fuzz: {text}", file=sys.stderr, flush=True)


def run(targets, seed, inputs, jobs=1, seconds=None, tell=lambda text: None):
    """Run a campaign; return (how many inputs, [Finding]).

    Arguments:
        inputs: in all; each target gets its share by its weight.
        jobs: processes side by side.
        seconds: when to end, None for never.
        tell: called with a line of text, every ten seconds or so.
    """
    until = time.monotonic() + seconds if seconds else None
    whole = sum(target.weight for target in targets)
    turns = []
    for target in targets:
        share = -(-inputs * target.weight // whole)
        turns += [(first, target.name, seed, min(TURN, share - first), until) for first in range(0, share, TURN)]
    # All targets take turns, so that a campaign that ends early has tried each.
    turns.sort(key=lambda turn: turn[0])
    found, done, begun = {}, 0, time.monotonic()
    told = begun
    with ProcessPoolExecutor(jobs) as pool:
        for count, findings in pool.map(_turn, turns):
            done += count
            if time.monotonic() - told > _TELL:
                told = time.monotonic()
                left = (told - begun) * (inputs - done) / max(done, 1)
                tell(f"{done}/{inputs} inputs, {len(found)} findings, {max(left, 0) / 60:.1f} min left")
            for one in findings:
                key = one.target, one.what, one.where
                times = one.times + (found[key].times if key in found else 0)
                found[key] = campaign.Finding(**{**found.get(key, one).dump(), "times": times})
    return done, sorted(found.values(), key=lambda one: (one.target, one.number))


def _turn(turn):
    first, name, seed, count, until = turn
    target = next(each for each in TARGETS if each.name == name)
    if until is not None and time.monotonic() > until:
        return 0, []
    return campaign.run(target, seed, count, first, until)


def _once(target, args):
    data = mutate.make(target.name, target.seeds, args.seed, args.only)
    if args.save:
        Path(args.save).write_bytes(data)
    print(repr(data[:2000]) + ("…" if len(data) > 2000 else ""), flush=True)
    _done, findings = campaign.run(target, args.seed, 1, args.only, traced=True)
    for finding in findings:
        print(finding.line())
    print(f"inputs=1 findings={len(findings)}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
