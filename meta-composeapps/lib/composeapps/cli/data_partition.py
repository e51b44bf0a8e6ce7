# SPDX-License-Identifier: MIT
"""What composeapps-data.service runs when its look at the disk found something to do.

    python3 -m composeapps.cli.data_partition DIRECTORY [ORIGIN]

DIRECTORY is the disk's below /sys. ORIGIN says who asks for a factory reset besides the boot partition: "kernel" for
the kernel's command line, "systemd" for factory-reset-now.target.
"""

import sys

from composeapps.cli import dockerroot
from composeapps.cli.config import load
from composeapps.disk import identity, prepare, reset, table, wish
from composeapps.disk.run import run
from composeapps.errors import ComposeAppsError, CorruptError, StorageError

VAR = "/var"


def main(argv):
    """Prepare the data partition and reset it where that is asked for; return the exit status."""
    disk = table.Disk(argv[0])
    try:
        wanted = _wish(disk, argv[1] if len(argv) > 1 else "")
        # A file system that is about to go need not be repaired first.
        part = prepare.prepare(disk, _say, whole=wanted is None or wanted.keep != wish.NOTHING)
        if wanted is not None:
            _reset(disk, part, wanted)
    except ComposeAppsError as err:
        _say(err, "<3>")
        return err.exit_code
    except OSError as err:
        _say(f"{err.filename or disk.device}: {err.strerror or err}", "<3>")
        return StorageError.exit_code
    return 0


def _say(text, level=""):
    # The number is for the journal: how much the line matters.
    print(f"{level}{text}", flush=True)


def _wish(disk, origin):
    """Return the wish for a reset, None for none. One that came another way is written down before it is followed."""
    boot = disk.partition("boot")
    if boot is None:
        # Without a place for it nothing could tell, after a power cut, that a reset is under way; repeating it does.
        return _asked(origin) if origin else None
    table.wait_for(boot.device)
    try:
        with wish.boot_partition(boot) as directory:
            found = wish.read(directory)
    except CorruptError as err:
        _say(f"{err}: nothing is reset", "<3>")
        found = None
    if found is None and origin:
        found = _asked(origin)
        with wish.boot_partition(boot, writable=True) as directory:
            wish.write(directory, found)
    return found


def _asked(origin):
    return wish.new(wish.NOTHING, origin=origin, machine=identity.machine_id("/"))


def _reset(disk, part, wanted):
    config = load()
    places = reset.Places(var=reset.Path(VAR), config=config, docker=reset.Path(dockerroot.configured()),
                          skeleton=reset.Path(prepare.SKELETON))
    again = reset.carry_out(wanted, part.device, places, _say)
    boot = disk.partition("boot")
    if boot is not None:
        with wish.boot_partition(boot, writable=True) as directory:
            wish.clear(directory)
    _say("factory reset done")
    # Asked for by the command line, the next start would find it there again.
    if again and wanted.origin != "kernel":
        _say("starting once more, with a new identity")
        run("systemctl", "--force", "reboot")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
