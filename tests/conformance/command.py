# SPDX-License-Identifier: MIT
"""The command line of scripts/tuf-conformance."""

import subprocess
import sys
import tempfile
from pathlib import Path

from composeapps.cli.parser import Parser

TOP = Path(__file__).resolve().parents[2]
HELP = {
    "examples": (
        ("scripts/tuf-conformance ../tuf-conformance", ""),
        ("scripts/tuf-conformance ../tuf-conformance -- -k rollback", "some of its tests"),
    ),
    "details": (
        "The suite (https://github.com/theupdateframework/tuf-conformance) is on no package index, so it is cloned "
        "beforehand. It gets an environment of its own below build/, and calls what devices verify with as it calls "
        "any client. What follows '--' goes to pytest.",
    ),
    "exits": {0: "all of it passed", 1: "some did not", 2: "wrong usage, or the suite cannot be run", 130: None},
    "environment": ("COMPOSEAPPS_BUILD",),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/tuf-conformance", "Hold the device's verifier against TUF's conformance suite.")
    parser.describe(**HELP)
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="a clone of the suite")
    parser.add_argument("words", metavar="WORD", nargs="*", help="for pytest, after '--'")
    return parser


def main(argv, build):
    """Run the suite in a directory; return the exit status.

    Arguments:
        argv: the command's arguments.
        build: where the suite's own environment goes, a Path.
    """
    args = make_parser().parse_args(argv)
    directory = args.directory.resolve()
    if not (directory / "tuf_conformance").is_dir():
        print(f"tuf-conformance: {args.directory} is no clone of the suite: it has no directory tuf_conformance",
              file=sys.stderr)
        return 2
    python = _environment(directory, Path(build) / "conformance")
    if python is None:
        return 2
    with tempfile.TemporaryDirectory(prefix="composeapps-conformance-") as place:
        entry = Path(place, "client")
        # The suite splits the command at blanks, so the path of this file is all there is of it.
        entry.write_text(f"#!{sys.executable} -B\nimport sys\nsys.path[:0] = {[*map(str, _PATHS)]!r}\n"
                         "from conformance.client import main\nsys.exit(main())\n")
        entry.chmod(0o755)
        done = subprocess.run([python, "-m", "pytest", "-q", "tuf_conformance", "--entrypoint", entry, *args.words],
                              cwd=directory, check=False)
    return min(done.returncode, 2)


_PATHS = (TOP / "tests", TOP / "meta-composeapps/lib")


def _environment(directory, place):
    """Return the Python of an environment with what the suite asks for; None when it cannot be made."""
    python = place / "bin/python"
    for command in (() if python.exists() else ([sys.executable, "-m", "venv", place],),
                    [[python, "-m", "pip", "install", "-q", "-e", directory]]):
        for words in command:
            if subprocess.run(words, check=False).returncode:
                print("tuf-conformance: the suite's environment cannot be made: see above", file=sys.stderr)
                return None
    return python
