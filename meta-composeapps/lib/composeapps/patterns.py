# SPDX-License-Identifier: MIT
"""Regular expressions that are compiled when they are first used: a command needs few of those that its modules have.

To compile one takes about as long as to load a small module.
"""

import re


class Pattern:
    """A regular expression with the methods and attributes of re.Pattern.

    Arguments:
        text: the expression (str or bytes).
        flags: those of ``re.compile``.
    """

    def __init__(self, text, flags=0):
        self._text, self._flags = text, flags

    def __getattr__(self, name):
        value = getattr(self.compiled(), name)
        # The next time it is found without coming here.
        setattr(self, name, value)
        return value

    def compiled(self):
        """Return the re.Pattern."""
        return re.compile(self._text, self._flags)
