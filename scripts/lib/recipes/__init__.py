# SPDX-License-Identifier: MIT
"""Generate pinned BitBake recipes from conf/apps/*.yml and the registries that they name."""
