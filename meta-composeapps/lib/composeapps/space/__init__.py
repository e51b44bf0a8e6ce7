# SPDX-License-Identifier: MIT
"""Room on the disk: the check before a download, pruning, and removal."""
