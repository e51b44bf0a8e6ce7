# SPDX-License-Identifier: MIT
"""A picture of what the demo shows: rich's export of a console, as one SVG file without scripts or fonts from afar."""

import io
import re

from rich.cells import cell_len
from rich.console import Console

from composeapps import durable

COLUMNS = 96


def console():
    """Return a Console that records what is printed on it, and shows nothing."""
    return Console(record=True, file=io.StringIO(), width=COLUMNS, highlight=False, force_terminal=True,
                   color_system="truecolor", legacy_windows=False)


def write(recorded, path):
    """Write what a Console of ``console`` recorded to a file, as wide as its longest line.

    Raises StorageError when the file system refuses.
    """
    lines = recorded.export_text(clear=False).splitlines()
    recorded.width = max([COLUMNS, *map(cell_len, lines)])
    text = recorded.export_svg(title="scripts/demo", unique_id="demo")
    # The fonts would be fetched from a server each time that somebody looks at the picture.
    text = re.sub(r"\s*@font-face\s*{[^}]*}", "", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    with durable.storage_errors(f"picture {path}"):
        durable.write_file(path, (text.rstrip() + "\n").encode())
