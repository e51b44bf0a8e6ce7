# SPDX-License-Identifier: MIT
"""composeapps metrics: how the device is, as Prometheus' text, for node_exporter's textfile collector."""

import os
from pathlib import Path

from composeapps.cli import output
from composeapps.errors import UsageError

HELP = {
    "examples": (
        ("composeapps metrics", ""),
        ("composeapps metrics --textfile /var/lib/node_exporter/composeapps.prom", "for its textfile collector"),
    ),
    "details": ("Nothing is changed and no lock is taken. What cannot be found out now is left out.",),
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    parser.add_argument("--textfile", metavar="FILE", help="write them to a file, which is replaced as a whole")
    parser.set_defaults(run=_metrics)


def _metrics(args):
    from composeapps.delivery import metrics

    text = metrics.render(output.load_config(args))
    if not args.textfile:
        print(text, end="")
        return 0
    path = Path(args.textfile)
    if path.suffix != ".prom":
        raise UsageError(f"the collector reads files with names that end in .prom: {path} has another one")
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        # It is of the moment: a cut costs it, and the next one makes it anew.
        temporary.write_text(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return 0
