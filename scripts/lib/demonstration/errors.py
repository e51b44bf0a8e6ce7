# SPDX-License-Identifier: MIT
"""What ends the demo."""


class DemoError(Exception):
    """A step failed; the message is one sentence for the user."""
