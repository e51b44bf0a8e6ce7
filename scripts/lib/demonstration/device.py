# SPDX-License-Identifier: MIT
"""The booted device: asking its apps."""

import json
import shlex
from urllib.parse import urlsplit

from demonstration.errors import DemoError

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
