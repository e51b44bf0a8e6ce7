# SPDX-License-Identifier: MIT
"""In place of openembedded-core's module of this name."""

import unittest


class OERuntimeTestCase(unittest.TestCase):
    """A case; the context sets ``target``, and ``tc``, itself."""

    target = tc = None

    def setUp(self):
        function = getattr(self, self._testMethodName)
        packages = getattr(function, "standin_packages", set())
        if packages and self.tc.image_packages.isdisjoint(packages):
            self.skipTest(f"the image has none of {', '.join(sorted(packages))}")
        for needed in self.needs():
            if needed not in self.tc.passed:
                self.skipTest(f"{needed} did not pass")

    def needs(self):
        """Return the ids of the cases that must have passed."""
        return getattr(getattr(self, self._testMethodName), "standin_depends", ())
