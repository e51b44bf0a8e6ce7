# SPDX-License-Identifier: MIT
"""Fetching a version of an app into the store."""
