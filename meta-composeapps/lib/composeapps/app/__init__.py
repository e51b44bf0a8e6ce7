# SPDX-License-Identifier: MIT
"""An app: its compose file, its bundle, its tree of images, publishing, and the old formats."""
