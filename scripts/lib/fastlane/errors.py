# SPDX-License-Identifier: MIT
"""The error of the image builder."""


class BuildError(Exception):
    """The build cannot go on; the message is one sentence that names the cause and the remedy."""
