# SPDX-License-Identifier: MIT
"""The ``composeapps`` command."""
