# SPDX-License-Identifier: MIT
"""Load oeqa runtime cases and run them on a target."""

import contextlib
import importlib
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from composeapps.errors import ComposeAppsError

CASES = hostsetup.LAYER / "lib" / "oeqa" / "runtime" / "cases"


class OeqaError(ComposeAppsError):
    """oeqa or the cases could not be loaded."""


@dataclass(frozen=True)
class Result:
    """What became of one case: ``outcome`` is "passed", "failed" or "skipped"; ``text`` says why, or is ""."""

    case: str
    outcome: str
    text: str = ""
    seconds: float = 0.0


def run_cases(target, packages, oeqa, *, cases=CASES, modules=("compose_apps",), test_data=None, logger=None):
    """Run the cases of ``modules`` on ``target`` and return a list of Results, in the order of running.

    Arguments:
        target: what the cases get as ``self.target``.
        packages: names of the packages that the image has, for the cases' conditions.
        oeqa: the directory that holds the Python package oeqa, e.g. openembedded-core's meta/lib.
        cases: the directory of the case modules.
        modules: as in TEST_SUITES: MODULE, or MODULE.CLASS.
        test_data: the variables of the image's build that cases ask for.
        logger: for oeqa's own messages.

    Raises OeqaError when there is no oeqa or no such module.
    """
    logger = logger or logging.getLogger("oeqa")
    with _imported(Path(oeqa)) as context_module:
        data = {"MLPREFIX": "", **(test_data or {})}
        context = context_module.OERuntimeTestContext(data, logger, target, set(packages), None)
        recorder = _Recorder(context)
        wanted = list(modules)
        context.loadTests([str(cases)], modules=wanted)
        recorder.expect(wanted)
        return recorder.run()


@contextlib.contextmanager
def _imported(directory):
    """Import oeqa's runtime context from ``directory``, and forget all of oeqa and of the cases afterwards."""
    if not (directory / "oeqa" / "runtime" / "context.py").is_file():
        raise OeqaError(f"{directory} holds no oeqa: name the directory meta/lib of an openembedded-core checkout")
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(directory))
    try:
        try:
            yield importlib.import_module("oeqa.runtime.context")
        except ImportError as err:
            raise OeqaError(f"oeqa in {directory} cannot be loaded: {err}") from err
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            found = getattr(sys.modules[name], "__file__", None) or ""
            if name.split(".")[0] == "oeqa" or Path(found).parent.name == "cases":
                del sys.modules[name]


class _Recorder:
    """Runs what a context has loaded, and keeps what oeqa's result says of each case."""

    def __init__(self, context):
        self.context = context

    def expect(self, modules):
        """Raise OeqaError for a wanted module of which nothing was loaded."""
        loaded = [case.id() for case in _flat(self.context.suites)]
        for module in modules:
            if not any(f"{case}.".startswith(f"{module}.") for case in loaded):
                raise OeqaError(f"there is no oeqa case {module}")

    def run(self):
        order = [case.id() for case in _flat(self.context.suites)]
        started = time.time()
        result = self.context.runTests()
        outcomes = {case.id(): ("passed", "") for case, _ in result.successes}
        outcomes |= {case.id(): ("skipped", reason) for case, reason in result.skipped}
        outcomes |= {case.id(): ("failed", text) for case, text in [*result.failures, *result.errors]}
        ends = getattr(result, "endtime", {})
        starts = getattr(result, "starttime", {})
        # What stands for a whole class or module is not among those that were to run.
        return [
            Result(case, *outcomes.get(case, ("failed", "it did not run")),
                   round(ends.get(case, started) - starts.get(case, started), 1))
            for case in [*order, *(other for other in outcomes if other not in order)]
        ]


def _flat(suite):
    """Return the cases of a suite, which may hold suites."""
    if not hasattr(suite, "__iter__"):
        return [suite]
    return [case for part in suite for case in _flat(part)]
