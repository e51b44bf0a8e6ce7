# SPDX-License-Identifier: MIT
"""dockerd alone, rebuilt from Debian's source with the layer's patches, and a root to run it in."""
