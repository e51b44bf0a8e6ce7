# SPDX-License-Identifier: MIT
"""What the harness itself may fail with; what it finds in a state is a verdict, no error."""


class CrashError(Exception):
    """The harness cannot do its work; one sentence that names the thing and the remedy."""
