# SPDX-License-Identifier: MIT
"""The command line of scripts/kill-test."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError
from fastlane.errors import BuildError
from fastlane.progress import Progress
from kills.campaign import APP, Campaign
from moby import build as moby
from moby.root import engine_root
from support.engine import DockerDaemon
from support.registries import open_registry
from support.updating import Device, Publisher

INSIDE = "COMPOSEAPPS_KILLS_INSIDE"
HELP = {
    "examples": (
        ("scripts/kill-test", ""),
        ("scripts/kill-test --kills 20 --seed 7 --no-steps", ""),
    ),
    "details": (
        "An app of several services goes to and fro between two versions on a real dockerd, by updates and rollbacks, "
        "and gets a third one that never becomes healthy. The agent is killed with SIGKILL at each step of its "
        "journal, and at random moments, half of the times together with the docker compose that it runs. Then "
        "'composeapps update' or 'composeapps run --installed' is run, once, and the app is looked at: its state "
        "file, journal, unpacked bundle, containers, their images and definitions. It must be the old version or the "
        "new one, whole and running.",
        "The last line of the output reads kills=N mixed=N down=N: kills, those that left something of two versions or "
        "anything else that belongs to neither, and those after which a service did not run or the next run failed.",
    ),
    "exits": {0: "none of these", 1: "some", 2: "wrong usage, or the test could not be done", 130: None},
    "environment": ("COMPOSEAPPS_BUILD", "COMPOSEAPPS_MIRROR", "NO_COLOR"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/kill-test",
                    "Kill the agent in the middle of updates, and see what the next run makes of it.")
    parser.describe(**HELP)
    parser.add_argument("--kills", type=_count, default=100, metavar="N", help="kills at random moments (default: 100)")
    parser.add_argument("--seed", default="0", metavar="S", help="decides the moments (default: 0)")
    parser.add_argument("--no-steps", action="store_true", help="leave out the kills at each step of the journal")
    parser.add_argument("--engine", choices=("stock", "patched"), default="patched",
                        help="which dockerd (default: patched)")
    parser.common.add_argument("--json", nargs="?", const="-", metavar="FILE", help="also all kills as JSON")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    return make_parser().parse_args(argv)


def _count(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of kills")
    return int(text)


def main(argv, build):
    """Run the command; return its exit status."""
    args = parse(argv)
    try:
        if os.geteuid():
            raise BuildError("this runs a dockerd: run it as root, or with sudo")
        if INSIDE not in os.environ:
            _enter(argv)
        return _run(args, Path(build))
    except (BuildError, ComposeAppsError, AssertionError) as err:
        print(f"kill-test: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kill-test: interrupted", file=sys.stderr)
        return 130


def _enter(argv):
    """Go on as the first process of a PID namespace: nothing that is started here outlives this process."""
    command = [shutil.which("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation",
               "private", sys.executable, sys.argv[0], *argv]
    os.execve(command[0], command, {**os.environ, INSIDE: "1"})


def _run(args, build):
    progress = Progress()
    root = engine_root(progress)
    dockerd = moby.patched(progress) / "dockerd" if args.engine == "patched" else None
    # dockerd's directory is to be below /tmp, where its root has nothing of its own.
    with tempfile.TemporaryDirectory(prefix="composeapps-kills-", dir="/tmp") as directory:
        place = Path(directory)
        daemon = DockerDaemon(root, place / "dockerd", dockerd=dockerd,
                              env={"DOCKER_LOAD_ROOTS": str(place / "dockerd/device/store")})
        with open_registry(place / "hub") as registry, daemon:
            device = Device(daemon.directory / "device", daemon, registry.endpoint)
            campaign = Campaign(device, Publisher(registry, "kills"), args.seed, print)
            if not args.no_steps:
                campaign.at_each_step()
            campaign.at_random(args.kills)
            device.remove_containers()
    _report(args, campaign)
    return 1 if campaign.failed else 0


def _report(args, campaign):
    document = json.dumps({"app": APP, "seed": args.seed, "engine": args.engine,
                           "kills": [kill.dump() for kill in campaign.kills]}, indent=1)
    if args.json == "-":
        print(document)
    elif args.json:
        Path(args.json).write_text(document + "\n")
    print(campaign.summary())
