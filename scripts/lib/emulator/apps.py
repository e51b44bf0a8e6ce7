# SPDX-License-Identifier: MIT
"""Wait until a booted device has its apps."""

from .errors import EmulatorError

SERVICE = "composeapps-start.service"


def wait_for_apps(machine, on_line):
    """Wait until the device has installed and started its preloaded apps.

    Arguments:
        machine: a logged-in emulator Machine.
        on_line: called with each line that the agent logs meanwhile.

    Raises EmulatorError with the agent's last words when it fails.
    """
    shown = 0
    while True:
        # Joins the start that boot has begun, and returns when that is over or after a while: reading the
        # journal takes an emulated processor a second that the apps could use.
        status = machine.run(f"timeout 20 systemctl start {SERVICE}", timeout=60, check=False).exit_status
        log = machine.run(f"journalctl --boot --no-pager --output cat _SYSTEMD_UNIT={SERVICE}", timeout=60, check=False)
        lines = log.stdout.splitlines()
        for line in lines[shown:]:
            on_line(line)
        shown = len(lines)
        if status == 0:
            return
        if status != 124:
            raise EmulatorError(f"the device did not start its apps: {lines[-1] if lines else 'see its journal'}")
