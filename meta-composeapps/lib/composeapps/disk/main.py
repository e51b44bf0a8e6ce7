# SPDX-License-Identifier: MIT
"""What composeapps-data.service runs when its look at the disk found something to do."""

import sys

from composeapps.disk import prepare, table
from composeapps.errors import ComposeAppsError, StorageError


def main(argv):
    """Prepare the disk whose directory below /sys is the only argument; return the exit status."""
    try:
        prepare.prepare(table.Disk(argv[0]), lambda text: print(text, flush=True))
    except ComposeAppsError as err:
        print(f"<3>{err}", flush=True)
        return err.exit_code
    except OSError as err:
        print(f"<3>{err.filename or argv[0]}: {err.strerror or err}", flush=True)
        return StorageError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
