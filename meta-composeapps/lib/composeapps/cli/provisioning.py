# SPDX-License-Identifier: MIT
"""What composeapps-provision.service runs when the provisioning area holds something that the device does not have.

    python3 -m composeapps.cli.provisioning DIRECTORY

DIRECTORY is the disk's below /sys.
"""

import os
import sys

from composeapps import durable
from composeapps.cli import config
from composeapps.cli.data_partition import say
from composeapps.disk import area, provision, table, wish
from composeapps.errors import ComposeAppsError, StorageError


def main(argv):
    """Take over what the area holds; return the exit status."""
    disk = table.Disk(argv[0])
    try:
        part = disk.partition(area.PARTITION)
        if part is not None:
            provision.take_over(part.device, config.load().identity_dir, config.check_own, say,
                                lambda name, request: _hand_out(disk, name, request))
    except ComposeAppsError as err:
        say(err, "<3>")
        return err.exit_code
    except OSError as err:
        say(f"{err.filename or disk.device}: {err.strerror or err}", "<3>")
        return StorageError.exit_code
    return 0


def _hand_out(disk, name, request):
    """Have a certificate signing request where a fixture finds it: on the console, and on the boot partition."""
    say(f"certificate signing request of {name}:\n{request.rstrip()}")
    boot = disk.partition("boot")
    if boot is not None:
        with (wish.boot_partition(boot, writable=True) as directory,
              durable.storage_errors("writing the certificate signing request to the boot partition")):
            durable.write_file(os.path.join(directory, f"{name}.csr"), request.encode(), mode=0o600)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
