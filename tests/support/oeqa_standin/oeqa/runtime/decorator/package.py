# SPDX-License-Identifier: MIT
"""In place of openembedded-core's module of this name."""


def OEHasPackage(names):  # noqa: N802 - oeqa's name
    """Skip a case unless the image has one of the packages ``names``."""
    def mark(function):
        function.standin_packages = {names} if isinstance(names, str) else set(names)
        return function
    return mark
