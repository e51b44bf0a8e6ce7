# SPDX-License-Identifier: MIT
"""composeapps factory-reset: back to the preloaded apps."""

import os
import sys

from composeapps.cli import output
from composeapps.disk.wish import KEEP, NOTHING
from composeapps.errors import UsageError

HELP = {
    "examples": (
        ("composeapps factory-reset", "ask first, then wipe all data and restart"),
        ("composeapps factory-reset --keep registration --yes", "identity, logins and delivery settings stay"),
        ("composeapps factory-reset --keep data --yes", "named volumes and the apps' own directories stay, too"),
        ("composeapps factory-reset --yes --no-reboot", "the next start does it"),
        ("composeapps factory-reset --cancel", "take it back before that"),
    ),
    "details": (
        "Nothing is wiped in the running system: the wish is written to the boot partition, and the next start carries "
        "it out before it mounts the data partition. A power cut at any moment leaves a device that finishes at the "
        "following start. Then the preloaded apps come from the factory store, with no network. Before anything is "
        "written down, all of the factory store is read: a device on which nothing could run afterwards is refused, "
        "but for --force.",
        "A reset is not a secure erasure: what was on the disk may be read from it. --discard tells the disk to drop "
        "all blocks of the data partition, which most flash storage follows.",
    ),
    "exits": {3: "the disk is not the layer's, or there are no preloaded apps", 4: "the factory store is damaged"},
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("--keep", choices=KEEP, default=NOTHING, help="what stays (default: nothing)")
    parser.add_argument("--discard", action="store_true", help="have the disk drop the blocks of what goes")
    parser.add_argument("--force", action="store_true", help="also where nothing could run afterwards")
    parser.add_argument("--no-reboot", action="store_true", help="leave restarting to somebody else")
    parser.add_argument("--cancel", action="store_true", help="take back a reset that has not been carried out")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=_reset)


def _reset(args):
    from composeapps.disk import asking, wish

    boot = asking.boot_partition()
    if args.cancel:
        found = asking.cancel(boot)
        if args.json:
            output.print_json({"cancelled": found._asdict() if found else None})
        else:
            print("the reset is taken back" if found else "no reset was asked for")
        return 0
    config = output.load_config(args)
    if not args.force:
        output.notify("reading the factory store …")
        asking.check(config, output.notify, "nothing is reset: mend that, or give --force")
    if not args.yes:
        _confirm(args.keep)
    wanted = wish.new(args.keep, args.discard)
    asking.ask(boot, wanted, output.notify)
    if args.json:
        output.print_json({"reset": wanted._asdict(), "reboot": not args.no_reboot})
    else:
        print(f"the next start resets this device, keeping {args.keep}")
    if not args.no_reboot:
        from composeapps.disk.run import run

        run("systemctl", "--no-block", "reboot")
    return 0


def _confirm(keep):
    if not (sys.stdin.isatty() and os.isatty(2)):
        raise UsageError("a factory reset removes data: give --yes where nobody can be asked")
    print(f"This wipes the data of this device, keeping {keep}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing is reset")
