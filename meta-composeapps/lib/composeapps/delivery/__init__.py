# SPDX-License-Identifier: MIT
"""Signed delivery: what a factory signed is found, verified and installed, and nothing else."""
