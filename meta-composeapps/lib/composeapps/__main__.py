# SPDX-License-Identifier: MIT
"""``python3 -m composeapps``: the command, from wherever the package can be imported."""

from composeapps.cli.main import program

if __name__ == "__main__":
    program()
