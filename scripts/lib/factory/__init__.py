# SPDX-License-Identifier: MIT
"""A factory on one machine: a local registry, demo images made of Debian packages, recipe generation."""
