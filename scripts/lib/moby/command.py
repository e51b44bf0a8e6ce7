# SPDX-License-Identifier: MIT
"""The command line of scripts/build-dockerd."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from composeapps.cli.parser import Parser
from fastlane import privilege
from fastlane.errors import BuildError
from fastlane.progress import Progress
from moby import build, series

HELP = {
    "examples": (
        ("scripts/build-dockerd", "dockerd with the layer's patches; prints where it is"),
        ("scripts/build-dockerd --stock",
         "without patches but by the same compiler: what the patched one is compared with"),
        ("scripts/build-dockerd --test", "Go's unit tests of the packages that the patches touch"),
        ("scripts/build-dockerd --patch my.patch --patch other.patch", "patches of your own instead of the layer's"),
        ("scripts/build-dockerd --json | jq -r .dockerd", "for other programs"),
    ),
    "details": (
        "Debian's compiler and its source of dockerd are installed into a directory below build/cache/moby, which "
        "takes minutes and 4 GB, once; remove the directory to look for newer ones. What was built stays there, by "
        "version and patches: a second call only names it.",
    ),
    "exits": {0: "done", 1: "the build or a test failed", 2: "wrong usage",
              130: "interrupted; the next call goes on where this one was"},
    "environment": ("COMPOSEAPPS_MIRROR", "COMPOSEAPPS_BUILD"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/build-dockerd", "Rebuild dockerd from Debian's source with the layer's patches.")
    parser.describe(**HELP)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--stock", action="store_true", help="without patches")
    which.add_argument("--patch", action="append", default=[], metavar="FILE",
                       help="with these patches, in this order; may be given again")
    parser.add_argument("--test", action="store_true", help="run the unit tests instead of building")
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror (http://deb.debian.org/debian)")
    parser.common.add_argument("--json", action="store_true", help="print what was done as JSON on standard output")
    parser.common.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    return make_parser().parse_args(argv)


def _terminated(_number, _frame):
    raise KeyboardInterrupt


def main(argv):
    """Run the command; returns the exit status."""
    arguments = parse(argv)
    # So that what runs in the root ends as well.
    signal.signal(signal.SIGTERM, _terminated)
    if arguments.mirror:
        os.environ["COMPOSEAPPS_MIRROR"] = arguments.mirror
    progress = Progress(quiet=arguments.quiet)
    started = time.monotonic()
    try:
        privilege.become_root([sys.executable, *sys.argv])
        result = _run(arguments, progress)
    except BuildError as err:
        print(f"build-dockerd: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build-dockerd: interrupted; the next call goes on where this one was", file=sys.stderr)
        return 130
    result |= {"seconds": round(time.monotonic() - started, 2), "steps": progress.timings}
    if arguments.json:
        print(json.dumps(result, indent=2))
    elif arguments.test:
        for entry in result["tests"]:
            print(f"{entry['result']:4} {entry['package']}")
    else:
        print(result["dockerd"])
    return 0


def _run(arguments, progress):
    if arguments.stock:
        chosen = series.Series()
    elif arguments.patch:
        chosen = series.of_files([Path(path).resolve() for path in arguments.patch])
    else:
        chosen = series.of_the_layer()
    if arguments.test:
        return {"patches": chosen.names, "tests": build.test(chosen, progress)}
    built = build.build(chosen, progress)
    return {"dockerd": str(built.directory / "dockerd"), "built": built.fresh, **built.description}
