# SPDX-License-Identifier: MIT
"""Errors of the campaign."""


class CampaignError(Exception):
    """A system cannot be made or entered; the message says why."""
