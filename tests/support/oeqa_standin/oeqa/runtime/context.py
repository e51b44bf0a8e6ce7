# SPDX-License-Identifier: MIT
"""In place of openembedded-core's module of this name: what loads and runs cases, for tests without it."""

import importlib.util
import time
import unittest
from pathlib import Path

from oeqa.runtime.case import OERuntimeTestCase


class _Result(unittest.TestResult):
    def __init__(self, passed):
        super().__init__()
        self.successes, self.starttime, self.endtime, self._passed = [], {}, {}, passed

    def startTest(self, test):  # noqa: N802 - unittest's name
        self.starttime[test.id()] = time.time()
        super().startTest(test)

    def stopTest(self, test):  # noqa: N802
        self.endtime[test.id()] = time.time()
        super().stopTest(test)

    def addSuccess(self, test):  # noqa: N802
        self.successes.append((test, None))
        self._passed.add(test.id())
        super().addSuccess(test)


class OERuntimeTestContext:
    """Loads cases in the order of their dependencies, and runs them."""

    def __init__(self, td, logger, target, image_packages, extract_dir):
        self.td, self.logger, self.target, self.image_packages = td, logger, target, image_packages
        self.passed, self.suites = set(), unittest.TestSuite()

    def loadTests(self, module_paths, modules=()):  # noqa: N802 - oeqa's name
        """Load the cases of ``modules`` (MODULE or MODULE.CLASS)."""
        cases = {}
        for wanted in modules:
            for path in [Path(directory, f"{wanted.split('.')[0]}.py") for directory in module_paths]:
                for case in self._load(path) if path.exists() else ():
                    if f"{case.id()}.".startswith(f"{wanted}."):
                        cases[case.id()] = case
        ordered = {}

        def add(case):
            for needed in case.needs():
                add(cases[needed])
            ordered.setdefault(case.id(), case)

        for case in cases.values():
            add(case)
        self.suites = unittest.TestSuite(ordered.values())

    def _load(self, path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, OERuntimeTestCase):
                for name in unittest.TestLoader().getTestCaseNames(found):
                    case = found(name)
                    case.target, case.tc = self.target, self
                    yield case

    def runTests(self):  # noqa: N802 - oeqa's name
        """Run what was loaded; return a TestResult that also knows ``successes``, ``starttime`` and ``endtime``."""
        result = _Result(self.passed)
        self.suites.run(result)
        return result
