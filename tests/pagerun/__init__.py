# SPDX-License-Identifier: MIT
"""The library of scripts/run-pages: the blocks of the pages are run as they stand, in a fresh clone."""
