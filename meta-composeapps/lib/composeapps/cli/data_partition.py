# SPDX-License-Identifier: MIT
"""What composeapps-data.service runs when its look at the disk found something to do.

    python3 -m composeapps.cli.data_partition DIRECTORY [ORIGIN]

DIRECTORY is the disk's below /sys. ORIGIN says who asks for a factory reset besides the boot partition: "kernel" for
the kernel's command line, "systemd" for factory-reset-now.target.
"""

import sys

from composeapps.disk import identity, prepare, table, wish
from composeapps.disk.run import run
from composeapps.errors import ComposeAppsError, StorageError

VAR = "/var"


def main(argv):
    """Prepare the data partition and reset it where that is asked for; return the exit status."""
    disk = table.Disk(argv[0])
    try:
        if start(disk, argv[1] if len(argv) > 1 else "", places, say):
            say("starting once more, with a new identity")
            run("systemctl", "--force", "reboot")
    except ComposeAppsError as err:
        say(err, "<3>")
        return err.exit_code
    except OSError as err:
        say(f"{err.filename or disk.device}: {err.strerror or err}", "<3>")
        return StorageError.exit_code
    return 0


def say(text, level=""):
    """Print a line for the journal; ``level`` is how much it matters, as sd-daemon(3) has it."""
    print(f"{level}{text}", flush=True)


def places():
    """Return the reset.Places of this device."""
    from composeapps.cli import dockerroot
    from composeapps.cli.config import load
    from composeapps.disk import reset

    return reset.Places(var=reset.Path(VAR), config=load(), docker=reset.Path(dockerroot.configured()),
                        skeleton=reset.Path(prepare.SKELETON))


def start(disk, origin, where, notify):
    """Do what a boot does before it mounts the data partition.

    Arguments:
        disk: the table.Disk that the root file system is on.
        origin: who asks for a reset besides the boot partition, "" for nobody.
        where: returns the reset.Places; only asked when there is a reset.
        notify: called with a sentence, and a second argument "<3>" for a bad one.

    Returns whether the device has to start once more. Raises ComposeAppsError, OSError.
    """
    boot = disk.partition("boot")
    wanted = _wish(boot, origin, notify)
    # What a reset finds of the file system, it says itself.
    part = prepare.prepare(disk, notify, whole=wanted is None)
    if wanted is None:
        return False
    # A first boot, which has the partition grow, waits for as little as can be.
    from composeapps.disk import reset

    again = reset.carry_out(wanted, part.device, where(), notify)
    if boot is not None:
        try:
            with wish.boot_partition(boot, writable=True) as directory:
                wish.clear(directory)
        except (ComposeAppsError, OSError) as err:
            # Starting once more would do it all again, and so on.
            notify(f"the factory reset is done, and {boot.device} cannot be told so: {err}", "<3>")
            return False
    notify("factory reset done")
    # Asked for by the command line, the next start would find it there again.
    return again and wanted.origin != "kernel"


def _wish(boot, origin, notify):
    """Return the wish for a reset, None for none. One that came another way is written down before it is followed."""
    asked = wish.new(wish.NOTHING, origin=origin, machine=identity.machine_id("/")) if origin else None
    if boot is None:
        # Without a place for it nothing could tell, after a power cut, that a reset is under way; repeating it does.
        return asked
    # Whatever is wrong with the boot partition, the data partition is needed.
    found = None
    try:
        table.wait_for(boot.device)
        with wish.boot_partition(boot) as directory:
            found = wish.read(directory)
    except (ComposeAppsError, OSError) as err:
        notify(f"{err}: no reset that is written down there is done", "<3>")
    if found is not None or asked is None:
        return found
    try:
        with wish.boot_partition(boot, writable=True) as directory:
            wish.write(directory, asked)
    except (ComposeAppsError, OSError) as err:
        notify(f"{err}: a power cut in the middle of the reset would end it", "<3>")
    return asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
