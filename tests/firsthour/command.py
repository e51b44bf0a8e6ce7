# SPDX-License-Identifier: MIT
"""The command line of scripts/first-hour."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from composeapps.cli.parser import Parser
from firsthour import steps, system
from firsthour.errors import CampaignError
from moby.root import mirror

AS = ("root", "sudo")
LENT = "build/cache/moby"
DEFAULT_SUITES = ("bookworm", "trixie")
HELP = {
    "examples": (
        ("scripts/first-hour", "Debian 12 and 13, as root and as a user with sudo"),
        ("scripts/first-hour noble --as sudo", "Ubuntu 24.04, as a user with sudo"),
        ("scripts/first-hour trixie --as root --lend-cache --until 5",
         "the first five commands, with the dockerd of this checkout"),
    ),
    "details": (
        "Each system is made of packages, and each run begins as if it had just been installed: a clone of the commit "
        "that is checked out here, then the commands of meta-composeapps/docs/app-developer.md up to one's own app on "
        "a booted image, as they stand there. Whatever a run started or wrote ends with it; its output is kept in "
        "build/first-hour.",
        "A run makes the Debian base and, without --lend-cache, compiles dockerd: ten minutes on two cores, and 6 GB "
        "of disk. Ubuntu's packages are taken unverified, since Debian has no keys of them.",
    ),
    "exits": {0: "each run ended with the app on a booted image", 1: "a command failed, or a system cannot be made",
              2: "wrong usage", 130: "interrupted"},
    "environment": ("COMPOSEAPPS_MIRROR", "COMPOSEAPPS_ACCEL", "COMPOSEAPPS_BUILD"),
}


def _number(text):
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, 1 at least")
    return int(text)


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/first-hour",
                    "Go from a fresh clone to an app of one's own on a booted image, in new systems.")
    parser.describe(**HELP)
    parser.add_argument("suites", nargs="*", metavar="SUITE",
                        help=f"of {', '.join(system.SUITES)} (default: {' '.join(DEFAULT_SUITES)})")
    parser.add_argument("--as", action="append", choices=AS, dest="users",
                        help="as root, or as a user with sudo; may be given again (default: both)")
    parser.add_argument("--until", type=_number, metavar="N", help="only the first N commands")
    parser.add_argument("--lend-cache", action="store_true",
                        help="let runs use the dockerd that this checkout has compiled already")
    parser.common.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    for suite in arguments.suites:
        if suite not in system.SUITES:
            parser.error(f"there is no suite '{suite}': choose of {', '.join(system.SUITES)}")
    return arguments


def main(argv, top, build):
    """Run the command; ``top`` is the repository, ``build`` the directory for products. Returns the exit status."""
    arguments = parse(argv)
    try:
        results = _campaign(arguments, Path(top), Path(build).resolve(), mirror())
    except CampaignError as err:
        print(f"first-hour: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("first-hour: interrupted", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        for one in results:
            how = "ok" if not one["status"] else f"status {one['status']} at '{one['commands'][-1]}', see {one['log']}"
            print(f"{one['suite']:9} {one['as']:5} {len(one['commands'])} commands {one['seconds']:6.0f} s  {how}")
    return 1 if any(one["status"] for one in results) else 0


def _campaign(arguments, top, build, debian):
    directory = build / "first-hour"
    wanted, cleaning = steps.steps()
    if arguments.until:
        wanted = wanted[:arguments.until - 1]
    results = []
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        origin = Path(place, "origin")
        cloned = subprocess.run(["git", "clone", "--bare", "--quiet", str(top), str(origin)], capture_output=True,
                                text=True, check=False)
        if cloned.returncode:
            raise CampaignError(f"{top} cannot be cloned: {cloned.stderr.strip()}")
        for suite in arguments.suites or DEFAULT_SUITES:
            tree = system.make(suite, directory, debian, _say)
            for who in arguments.users or AS:
                results.append(_one(arguments, suite, tree, who, Path(place), origin, (wanted, cleaning), build))
    return results


def _one(arguments, suite, tree, who, place, origin, script, build):
    """Run the script in a system; return what is told of it."""
    log = build / "first-hour" / f"{suite}-{who}.log"
    started, commands, shown = time.monotonic(), [], []
    # No more than dockerd: trees of many users' files would have to be of the clone's file system, and of the user.
    lent = (build / "cache" / "moby").resolve() if arguments.lend_cache else None
    if lent:
        lent.mkdir(parents=True, exist_ok=True)

    def heard(line):
        if line.startswith("step "):
            commands.append(line.partition(": ")[2])
            shown.clear()
            _say(f"{suite}, {who}: {line}")
        shown.append(line)

    status = system.run(tree, place / f"{suite}-{who}", origin, "root" if who == "root" else system.USER,
                        steps.script(*script, lent=LENT if lent else ""), log, heard, cache=lent)
    if not status and not arguments.until and not any(steps.RUNS.fullmatch(line) for line in shown):
        status = 1
    return {"suite": suite, "as": who, "status": status, "seconds": round(time.monotonic() - started, 1),
            "commands": commands, "log": str(log)}


def _say(text):
    print(text, file=sys.stderr, flush=True)
