# SPDX-License-Identifier: MIT
"""Inputs such as others write, made at random, for every parser of the package."""
