# SPDX-License-Identifier: MIT
"""scripts/demo: the whole chain, from compose files to apps that answer on a booted device."""
