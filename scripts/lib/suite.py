# SPDX-License-Identifier: MIT
"""The command line of scripts/test: pytest's, with a help and a word on wrong usage of its own."""

import contextlib
import io
import os
import re

from composeapps.cli.parser import Parser

HELP = {
    "examples": (
        ("scripts/test", "everything"),
        ("scripts/test --quick", "nothing that boots a virtual machine, none of the longest"),
        ("scripts/test tests/app -k bundle", "what one is working on"),
        ("scripts/test --durations=25", "tells the slowest tests and files as well"),
    ),
    "details": (
        "All arguments go to pytest, which has more options than are listed here: 'build/venv/bin/python -m pytest "
        "--help' has them all. What the tests need is set up before, and ruff looks at all sources.",
        "Tests run side by side, one worker a core, four at most; -n 0 runs one after the other, as -s and --pdb do.",
    ),
    "exits": {0: "all passed", 1: "a test failed, or ruff found something", 2: "wrong usage, or interrupted",
              4: "a file or test that was named is not there", 5: "no test was chosen"},
    "environment": ("COMPOSEAPPS_BUILD", "COMPOSEAPPS_ACCEL", "COMPOSEAPPS_MIRROR", "PIP_INDEX_URL"),
}
# With these a test talks to the terminal, or pytest-xdist is told what to do.
_BY_ITSELF = ("-n", "-s", "--capture=no", "--dist", "--numprocesses", "--pdb", "--trace", "-pno:xdist", "no:xdist")


def make_parser():
    """Return the Parser that has the help; pytest is the one to parse."""
    parser = Parser("scripts/test", "Run the test-suite, after setting up what it needs.")
    parser.describe(**HELP)
    parser.add_argument("tests", metavar="FILE|DIR|FILE::TEST", nargs="*", help="which tests (default: all)")
    parser.add_argument("--quick", action="store_true", help="leave out what boots a virtual machine, and the longest")
    parser.add_argument("-k", metavar="EXPRESSION", help="those whose names fit: 'bundle and not odd'")
    parser.add_argument("-x", action="store_true", help="stop at the first that fails")
    parser.add_argument("-n", metavar="N", help="so many workers side by side")
    parser.add_argument("--durations", metavar="N", help="tell the N slowest")
    parser.add_argument("--junitxml", metavar="FILE", help="write a report there, for CI")
    return parser


def workers(arguments):
    """Return the words that let pytest run tests side by side, unless ``arguments`` are against it."""
    if any(word.startswith(_BY_ITSELF) for word in arguments):
        return []
    return ["-n", str(min(len(os.sched_getaffinity(0)), 4))]


def problem(arguments):
    """Return what pytest has against a command line, in a sentence, or None. Runs no test."""
    import pytest

    class Stop:
        @pytest.hookimpl(tryfirst=True)
        def pytest_cmdline_main(self, config):
            return 0

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = pytest.main(list(arguments), plugins=[Stop()])
    if status != pytest.ExitCode.USAGE_ERROR:
        return None
    found = re.findall(r"\berror: (?!usage:)(.*)", said.getvalue(), re.IGNORECASE)
    return found[-1] if found else "pytest does not take this"
