# SPDX-License-Identifier: MIT
"""The crash harness: every state that a power cut can leave on a disk, made and checked.

A real process writes to a real ext4 whose block writes are logged (recorder). From the log the
states of the disk are put together that a cut could have left (states, replay). Each is mounted,
repaired and checked as a device would at its next boot (check).
"""
