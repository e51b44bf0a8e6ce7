# SPDX-License-Identifier: MIT
"""The booted device: waiting for its apps, and asking them."""

import json
import shlex
from urllib.parse import urlsplit

from demonstration.errors import DemoError

SERVICE = "composeapps-start.service"

# Asks in the shell itself: starting Python or curl takes seconds on an emulated device. An app that
# has just started may need a moment until it answers.
_FETCH = r"""
deadline=$((SECONDS + 120))
while ! answer=$( {{ exec 3<>/dev/tcp/{host}/{port} && printf 'GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n' >&3 \
    && cat <&3; }} 2>/dev/null ) || [[ $answer != HTTP/1.?' 200 '* ]]; do
  [ $SECONDS -lt $deadline ] || {{ printf '%s' "${{answer%%$'\r'*}}"; exit 1; }}
  sleep 0.2
done
printf '%s' "${{answer#*$'\r\n\r\n'}}"
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
            raise DemoError(f"the device did not start its apps: {lines[-1] if lines else 'see its journal'}")


def services(machine):
    """Return what ``composeapps ps --json`` says on the device."""
    return json.loads(machine.run("composeapps ps --json", timeout=60, check=False).stdout)


def fetch(machine, url):
    """Return what ``url`` answers when it is asked on the device; raises DemoError."""
    parts = urlsplit(url)
    command = _FETCH.format(host=parts.hostname, port=parts.port or 80, path=parts.path or "/")
    done = machine.run(f"bash -c {shlex.quote(command)}", timeout=150, check=False)
    if done.exit_status:
        raise DemoError(f"{url} does not answer on the device: {done.stdout.strip() or 'connection refused'}")
    return done.stdout
