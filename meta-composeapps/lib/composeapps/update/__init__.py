# SPDX-License-Identifier: MIT
"""Updating an installed app to another version, and back."""
