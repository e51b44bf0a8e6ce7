# SPDX-License-Identifier: MIT
"""The booted device: waiting for its apps, and asking them."""

import json
import shlex

from demonstration.errors import DemoError

SERVICE = "composeapps-start.service"

# An app that has just started may need a moment until it answers.
_FETCH = """\
import sys, time, urllib.request
deadline = time.monotonic() + 120
while True:
    try:
        sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode(errors="replace"))
        break
    except OSError as err:
        if time.monotonic() > deadline:
            sys.exit(f"{sys.argv[1]} does not answer: {err}")
        time.sleep(0.5)
"""


def wait_for_apps(machine, on_line):
    """Wait until the device has installed and started its preloaded apps.

    Arguments:
        machine: a logged-in emulator Machine.
        on_line: called with each line that the agent logs meanwhile.

    Raises DemoError with the agent's last words when it fails.
    """
    shown = 0
    while True:
        # Joins the start that boot has begun, and returns when that is over or after a while.
        status = machine.run(f"timeout 5 systemctl start {SERVICE}", timeout=60, check=False).exit_status
        log = machine.run(f"journalctl --boot --no-pager --output cat _SYSTEMD_UNIT={SERVICE}", timeout=60, check=False)
        lines = log.stdout.splitlines()
        for line in lines[shown:]:
            on_line(line)
        shown = len(lines)
        if status == 0:
            return
        if status != 124:
            raise DemoError(f"the device did not start its apps: {lines[-1] if lines else 'see its journal'}")


def services(machine):
    """Return what ``composeapps ps --json`` says on the device."""
    return json.loads(machine.run("composeapps ps --json", timeout=60, check=False).stdout)


def fetch(machine, url):
    """Return what ``url`` answers when it is asked on the device; raises DemoError."""
    command = f"python3 -c {shlex.quote(_FETCH)} {shlex.quote(url)}"
    done = machine.run(command, timeout=150, check=False)
    if done.exit_status:
        raise DemoError(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else f"{url} does not answer")
    return done.stdout
