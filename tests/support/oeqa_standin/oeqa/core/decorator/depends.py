# SPDX-License-Identifier: MIT
"""In place of openembedded-core's module of this name."""


def OETestDepends(names):  # noqa: N802 - oeqa's name
    """Run a case after those with the ids ``names`` (module.Class.test), and skip it unless they passed."""
    def mark(function):
        function.standin_depends = tuple(names)
        return function
    return mark
