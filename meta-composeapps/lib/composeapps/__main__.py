# SPDX-License-Identifier: MIT
"""``python3 -m composeapps``: the command, from wherever the package can be imported."""

import sys

from composeapps.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
