# SPDX-License-Identifier: MIT
"""Numbers of bytes as people read them."""


def human_size(size):
    """Return a number of bytes as a text, in powers of ten."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
