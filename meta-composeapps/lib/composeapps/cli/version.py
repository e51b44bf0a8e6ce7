# SPDX-License-Identifier: MIT
"""composeapps version"""

import sys

from composeapps import __version__
from composeapps.cli import output

HELP = {"examples": (("composeapps version", ""), ("composeapps version --json", ""))}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.set_defaults(run=_version)


def _version(args):
    from composeapps.oci.platforms import host_platform

    python = ".".join(map(str, sys.version_info[:3]))
    value = {"composeapps": __version__, "python": python, "platform": str(host_platform())}
    if args.json:
        output.print_json(value)
    else:
        for name, version in value.items():
            print(f"{name} {version}")
