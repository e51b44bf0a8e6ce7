# SPDX-License-Identifier: MIT
"""The command line of scripts/run-pages."""

import sys
import tempfile
from pathlib import Path

from composeapps.cli.parser import Parser
from pagerun import clone, run
from support.pages import TOP

HELP = {
    "examples": (
        ("scripts/run-pages", "all that can be run without another machine: hours"),
        ("scripts/run-pages --sample", "what takes seconds, as the test-suite does"),
        ("scripts/run-pages README.md meta-composeapps/docs/qa.md", ""),
    ),
    "details": (
        "Each page is run in a fresh clone of this checkout, its blocks in their order, in one shell with a home "
        "directory of its own. A comment before a block says what is to be done with it: 'not run: REASON', 'slow' (it "
        "is no part of the sample), 'status: N', 'file: PATH' (it is written there), 'output' (what the block before "
        "prints).",
    ),
    "exits": {0: "every page does what it says", 1: "one does not", 2: "wrong usage", 130: "interrupted"},
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/run-pages", "Run what the pages say, and compare what they show.")
    parser.describe(**HELP)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="Markdown files (default: all but the decisions)")
    parser.add_argument("--sample", action="store_true", help="leave out the blocks that are marked as slow")
    parser.add_argument("--list", action="store_true", help="tell what would be run, and run nothing")
    parser.add_argument("--new-machine", action="store_true",
                        help="give the clone nothing of what this checkout has downloaded and compiled")
    return parser


def main(argv):
    """Run the command line ``argv``; return the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    known = run.all_pages()
    pages = [Path(name).resolve() for name in args.pages] or known
    if unknown := [path for path in pages if path not in known]:
        parser.error(f"{unknown[0]} is no page of this checkout")
    failed = 0
    try:
        for path in pages:
            if found := run.blocks(path, args.sample):
                failed += _list(path, found) if args.list else _run(path, args)
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


def _list(path, found):
    for block in found:
        print(f"{path.relative_to(TOP)}:{block.line}: {block.text.splitlines()[0] if block.text else ''}")
    return 0


def _run(path, args):
    """Run a page and tell of it; return how many of its blocks failed."""
    name = path.relative_to(TOP)

    def tell(result):
        first = result.text.splitlines()[0]
        print(f"{'FAILED' if result.problem else 'ok':6}  {name}:{result.line}  {result.seconds:.0f} s  {first}",
              flush=True)
        if result.problem:
            print(f"  {result.problem}", flush=True)
            print("".join(f"  | {line}\n" for line in result.output.splitlines()[-40:]), end="", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="composeapps-clone-", ignore_cleanup_errors=True) as directory:
        checkout = clone.make(Path(directory, "meta-composeapps"), shared=not args.new_machine)
        results = run.run(path, checkout, args.sample, tell)
    return sum(bool(result.problem) for result in results)
