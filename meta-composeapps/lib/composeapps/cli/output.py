# SPDX-License-Identifier: MIT
"""What subcommands share: the configuration from their options, tables, JSON, progress lines."""

import json
import sys

from composeapps.sizes import human_size

__all__ = ["add_endpoint", "add_json", "human_size", "load_config", "notify", "permits", "print_json",
           "print_table"]


def add_json(parser, text="print JSON on standard output"):
    """Add the --json option, whose help is ``text``, to those that the commands have in common."""
    parser.common.add_argument("--json", action="store_true", help=text)


def add_endpoint(parser):
    """Add the --endpoint option, which composeapps.registry.client.given_endpoints reads."""
    parser.add_argument("--endpoint", metavar="HOST=URL", action="append", default=[],
                        help="where a registry listens; can be repeated")


def load_config(args):
    """Return the Config from the file and the options of the command line."""
    from composeapps.cli import config

    return config.load(args.config, {
        "store": args.store, "compose_root": args.compose_root, "state_dir": args.state_dir,
        "docker_host": args.docker_host,
    })


def permits(config):
    """Return what Parts ask before a version comes, None on a device that takes any."""
    if not config.server or config.unsigned:
        return None

    def permits(parts, uri):
        from composeapps.delivery.permits import check

        check(parts, uri)

    return permits


def print_json(value):
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))


def print_table(header, rows):
    """Print rows of texts in columns; nothing but the header when there are none."""
    table = [header, *rows]
    widths = [max(len(str(row[column])) for row in table) for column in range(len(header))]
    for row in table:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def notify(text):
    """Print a line of progress on standard error, at once."""
    print(text, file=sys.stderr, flush=True)
