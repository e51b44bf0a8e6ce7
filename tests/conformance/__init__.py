# SPDX-License-Identifier: MIT
"""Killing the agent in the middle of updates, and seeing what the next run makes of it."""
