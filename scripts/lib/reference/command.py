# SPDX-License-Identifier: MIT
"""The command line of scripts/docs."""

import difflib
import sys
from pathlib import Path

from composeapps import durable
from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError

HELP = {
    "examples": (
        ("scripts/docs", "write the pages anew, after an option, a setting or a variable changed"),
        ("scripts/docs --check", "for CI: fail when a page is not what the code says"),
    ),
    "details": (
        "The pages are meta-composeapps/docs/reference: the agent's settings, an example of them, commands, exit "
        "statuses, environment variables, the status document, BitBake variables and kas files. Each row of them comes "
        "from the code, the schema, or the layer's own files.",
    ),
    "exits": {0: "the pages are what the code says", 1: "--check found a difference", 2: "wrong usage", 7: None},
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/docs", "Make the reference pages from the code.")
    parser.describe(**HELP)
    parser.add_argument("--check", action="store_true", help="write nothing; show what would change")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    return make_parser().parse_args(argv)


def main(argv, top):
    """Run the command; ``top`` is the repository. Returns the exit status."""
    arguments = parse(argv)
    from reference import pages

    directory = Path(top) / "meta-composeapps" / "docs" / "reference"
    try:
        with durable.storage_errors(f"writing {directory}"):
            return _run(arguments, directory, pages.render(top))
    except ComposeAppsError as err:
        print(f"docs: {err}", file=sys.stderr)
        return err.exit_code


def _run(arguments, directory, wanted):
    there = {path.name: path.read_text() for path in sorted(directory.glob("*"))} if directory.is_dir() else {}
    changed = [name for name in sorted({*there, *wanted}) if there.get(name) != wanted.get(name)]
    for name in changed:
        if arguments.check:
            print("".join(difflib.unified_diff(
                there.get(name, "").splitlines(True), wanted.get(name, "").splitlines(True),
                f"{directory / name}", "what the code says")), end="")
        elif name in wanted:
            directory.mkdir(parents=True, exist_ok=True)
            durable.write_file(directory / name, wanted[name].encode())
        else:
            (directory / name).unlink()
    if arguments.check and changed:
        print(f"docs: {', '.join(changed)} differ from the code: run scripts/docs", file=sys.stderr)
        return 1
    for name in changed:
        print(directory / name)
    return 0
