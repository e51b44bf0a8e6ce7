# SPDX-License-Identifier: MIT
"""Making devices out of one image: the identity and settings of each."""
