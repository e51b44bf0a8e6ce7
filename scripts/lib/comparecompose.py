# SPDX-License-Identifier: MIT
"""The command line of scripts/compare-compose, and the comparison behind it."""

import hashlib
import json
import os
import re
import sys
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import hostsetup
from composeapps.app import composecheck, publish
from composeapps.app.bundle import BASE_NAMES, OVERRIDE_NAMES
from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError

EQUAL, REFUSED, INVALID, UNCHECKED = "equal", "refused", "invalid", "unchecked"
DIFFERENT, FAILED = "different", "failed"
_SUFFIXES = (".yml", ".yaml")
# How a compose file's services begin; whatever else is YAML is left alone.
_SERVICES = re.compile(rb"(?m)^\s*[{,?]?\s*[\"']?services[\"']?\s*(?::|$)|^\{.*services")
_LARGEST = 4 * 1024 * 1024

HELP = {
    "examples": (
        ("scripts/compare-compose ~/src/our-apps", ""),
        ("scripts/compare-compose --compose /usr/libexec/docker/cli-plugins/docker-compose tests/app/corpus", ""),
        ("scripts/compare-compose --json ~/src/our-apps | jq '.[] | select(.outcome != \"equal\")'", ""),
        ("scripts/compare-compose --only different,failed ~/src/our-apps", ""),
    ),
    "details": (
        "Every file below DIR that is called *.yml or *.yaml and has services is taken for an app's compose file, in "
        "the directory it lies in; compose.yaml or docker-compose.yml with the file that overrides it are one app, as "
        "docker compose has it. Each is prepared as 'composeapps publish' does it, but for the registry: every image "
        "gets a digest that is made up. Then docker compose is asked what it makes of both. Nothing is written into "
        "DIR, and no network is used.",
        {
            EQUAL: "docker compose makes the same of the compose file and of the pinned one",
            REFUSED: "publish says in one sentence why it does not take it",
            INVALID: "docker compose does not take it either",
            UNCHECKED: "docker compose cannot say: a file of the device that it reads is not on this machine",
            DIFFERENT: "docker compose makes something else of the pinned file: a fault of publish",
            FAILED: "publish ended with an error that it does not know: a fault of publish",
        },
    ),
    "exits": {0: "none is different, none failed", 1: "one is different or failed",
              2: "wrong usage, or no docker compose"},
}


class Comparison(NamedTuple):
    """What came of an app: its compose ``file``, the ``outcome``, and a sentence unless it is EQUAL."""

    file: Path
    outcome: str
    text: str = ""


def main(argv):
    """Run the command line; return the exit status."""
    args = make_parser().parse_args(argv)
    program = args.compose or composecheck.find_for_publishing() or _of_the_base()
    if program is None or not Path(program).exists():
        print(f"compare-compose: {program or 'docker compose'} is not there: install docker compose 2, name it with "
              "--compose, or make a base that has it with scripts/build-image --base-only", file=sys.stderr)
        return 2
    if not args.directory.is_dir():
        print(f"compare-compose: {args.directory} is not a directory", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1) as pool:
        found = list(pool.map(lambda app: compare(*app, program), list(apps(args.directory))))
    shown = [each for each in found if not args.only or each.outcome in args.only]
    if args.json:
        print(json.dumps([{**each._asdict(), "file": str(each.file)} for each in shown], indent=2))
    else:
        width = max((len(str(each.file)) for each in shown), default=0)
        for each in shown:
            print(f"{each.file!s:{width}}  {each.outcome:9}  {each.text}".rstrip())
        counts = Counter(each.outcome for each in found)
        print(f"{len(found)} apps: " + (", ".join(f"{counts[name]} {name}" for name in sorted(counts)) or "none"))
    return 1 if any(each.outcome in (DIFFERENT, FAILED) for each in found) else 0


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/compare-compose",
                    "Compare what publish makes of compose files with docker compose's own reading.")
    parser.describe(**HELP)
    parser.add_argument("directory", metavar="DIR", type=Path, help="where to look for compose files, at any depth")
    parser.add_argument("--compose", metavar="PROGRAM", help="docker compose (default: the one that is installed, "
                        "else that of the Debian base that scripts/build-image has made)")
    parser.add_argument("--only", metavar="OUTCOMES", type=lambda text: text.split(","),
                        help="show those with one of these outcomes, separated by commas")
    parser.common.add_argument("--json", action="store_true", help="print JSON")
    return parser


def apps(directory):
    """Yield (directory, compose files to name) of each app below a directory; an empty list for docker compose's own
    choice."""
    for root, folders, names in os.walk(directory):
        folders.sort()
        root = Path(root)
        if any(name in names for name in BASE_NAMES):
            yield root, []
            names = [name for name in names if name not in OVERRIDE_NAMES + BASE_NAMES]
        for name in sorted(names):
            if name.endswith(_SUFFIXES) and _has_services(root / name):
                yield root, [root / name]


def _has_services(path):
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LARGEST)
    except OSError:
        return False
    for encoding in ("utf-16-le", "utf-16-be"):
        if data.startswith("\ufeff".encode(encoding)):
            data = data.decode(encoding, errors="replace").encode()
    return bool(_SERVICES.search(data.removeprefix(b"\xef\xbb\xbf")))


def compare(directory, files, program):
    """Return the Comparison of an app.

    Arguments:
        directory: the app's directory.
        files: its compose files, none for docker compose's choice.
        program: docker compose.
    """
    file = files[0] if files else directory / next(name for name in BASE_NAMES if (directory / name).exists())
    said = []
    try:
        publish.prepare(directory, files, _digest, program=program, notify=said.append)
    except composecheck.InvalidError as err:
        return Comparison(file, INVALID, str(err))
    except composecheck.DifferentError as err:
        return Comparison(file, DIFFERENT, str(err))
    except ComposeAppsError as err:
        return Comparison(file, REFUSED, str(err))
    except Exception as err:
        traceback.print_exc()
        return Comparison(file, FAILED, f"{type(err).__name__}: {err}")
    unchecked = next((line for line in said if "not checked" in line), None)
    return Comparison(file, UNCHECKED, unchecked) if unchecked else Comparison(file, EQUAL)


def _of_the_base():
    """Return the docker compose of the Debian base that was used last, which devices have; None when there is none."""
    bases = sorted(hostsetup.BUILD.glob("cache/base-*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    programs = (f"{base}/tree{composecheck.PLUGINS[0]}" for base in bases)
    return next(filter(os.path.exists, programs), None)


def _digest(ref):
    return f"sha256:{hashlib.sha256(str(ref).encode()).hexdigest()}"
