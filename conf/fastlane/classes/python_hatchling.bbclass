# SPDX-License-Identifier: MIT
# The recipes that inherit it are skipped (pypi.bbclass).
