# SPDX-License-Identifier: MIT
"""The disk that the device boots from, before its data partition is mounted."""
