# SPDX-License-Identifier: MIT
"""dockerd: its API, the labels of what it has, ways of loading images, taking down."""
