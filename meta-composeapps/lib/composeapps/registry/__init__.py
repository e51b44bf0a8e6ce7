# SPDX-License-Identifier: MIT
"""Talking to registries: requests, logins, settings, patience."""
