# SPDX-License-Identifier: MIT
"""Errors of the checks that a user may see: one sentence each, with the remedy."""


class CheckError(Exception):
    """A check could not be carried out; the message says why and what to do."""
