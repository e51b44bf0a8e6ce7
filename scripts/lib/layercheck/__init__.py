# SPDX-License-Identifier: MIT
"""Checks of the layer on real OpenEmbedded, behind scripts/check-layer and the test-suite."""
