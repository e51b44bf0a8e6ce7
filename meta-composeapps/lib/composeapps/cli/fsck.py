# SPDX-License-Identifier: MIT
"""composeapps fsck: dockerd's store after a power cut."""

import os

from composeapps.cli import dockerroot, output
from composeapps.errors import UsageError

HELP = {
    "examples": (
        ("composeapps fsck --dry-run", "what is damaged, and what would be done"),
        ("composeapps fsck", "check and repair; docker.service must be stopped"),
        ("composeapps fsck --full", "read every layer again"),
        ("composeapps fsck --background", "beside a running dockerd: read layers, repair nothing"),
    ),
    "details": (
        "Checks the metadata of all images, layers and containers, and reads the files of each layer that was not read "
        "before. What is damaged is healed from the restorable store, else removed with what is built on it, so that "
        "'composeapps run' loads it again. Volumes are not touched. What may be of value is set aside under "
        "lost+fsck in the data root. The last report with findings is in composeapps-fsck/report.json there.",
    ),
    "exits": {0: "clean", 4: "damage is left, or was found by --dry-run or --background", 9: "another fsck is at work",
              10: "dockerd's store was damaged and is repaired", 11: "dockerd is at work on its store"},
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("--data-root", metavar="DIR", help="dockerd's data directory (default: what "
                        "/etc/docker/daemon.json says, else /var/lib/docker)")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument("--full", action="store_true", help="read all layers, also those that were read before")
    parser.add_argument("--background", action="store_true",
                        help="read layers while dockerd runs; what is damaged is repaired at the next boot")
    parser.add_argument("--time-limit", metavar="SECONDS", type=float,
                        help="stop reading layers after so long; --background reads the rest")
    parser.set_defaults(run=_fsck)


def _fsck(args):
    from composeapps.dockerstore import fsck

    if args.time_limit is not None and not 0 <= args.time_limit < 1e9:
        raise UsageError("--time-limit takes a number of seconds")
    stores = _Stores(args)
    data_root = args.data_root or dockerroot.configured()
    report = fsck.run(data_root, stores, dry_run=args.dry_run, time_limit=args.time_limit, full=args.full,
                      background=args.background, notify=output.notify)
    if args.json:
        output.print_json(report.to_json())
    else:
        # The journal takes a number in front for how much a line matters.
        mark = "<4>" if "JOURNAL_STREAM" in os.environ else ""
        *lines, last = report.sentences()
        for line in lines:
            print(mark + line)
        print(last)
    return report.exit_code


class _Stores:
    """The restorable stores; the configuration is read only when something is damaged."""

    def __init__(self, args):
        self._args = args

    def __iter__(self):
        config = output.load_config(self._args)
        return iter([config.store, config.factory_store])
