# SPDX-License-Identifier: MIT
"""scripts/registry: a registry on this machine that lasts, the one of the demo and of a user's first own app."""
