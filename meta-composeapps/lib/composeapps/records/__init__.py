# SPDX-License-Identifier: MIT
"""What the agent remembers on the disk: states of apps, journal, history, rejected versions, the lock."""
