# SPDX-License-Identifier: MIT
"""Generate pinned BitBake recipes of apps from registries, and of Python packages from PyPI."""
