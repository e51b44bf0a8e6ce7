# SPDX-License-Identifier: MIT
"""Checking and repairing dockerd's overlay2 store while dockerd is down; ``fsck.run`` is the entry."""
