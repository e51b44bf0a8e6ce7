# SPDX-License-Identifier: MIT
"""What of dockerd's and docker compose's failures says something about an app, and what about the device.

Both report in words only. A version is to blame for what its compose file and its images ask for; not for a
disk that is full, a dockerd that goes down, or a name that nobody resolves now.
"""

import re
import socket
import struct

from composeapps.errors import (
    EngineError,
    LockedError,
    NotRunningError,
    RegistryError,
    SpaceError,
    StorageError,
)

# As the kernel, Go's net package, dockerd, containerd and docker compose put it.
_DEVICE = re.compile("|".join((
    "no space left on device", "disk quota exceeded", "read-only file system", "input/output error",
    "cannot allocate memory", "too many open files", "resource temporarily unavailable",
    "cannot connect to the docker daemon", "is the docker daemon running", "is docker.service running",
    "docker daemon is not running", "daemon is shutting down", "connection refused", "connection reset by peer",
    "broken pipe", "unexpected eof", "connection error: desc", "ttrpc: closed", "containerd.sock",
    "no such host", "temporary failure in name resolution", "server misbehaving", "network is unreachable",
    "no route to host", "i/o timeout", "tls handshake timeout", "context deadline exceeded",
)), re.IGNORECASE)


def is_devices(err):
    """Tell whether an error (a ComposeAppsError) is the device's or its surroundings' fault, and no version's."""
    if isinstance(err, NotRunningError):
        # A service's last words may be any; what it was asked for decides.
        return False
    if isinstance(err, StorageError | SpaceError | RegistryError | LockedError):
        return True
    return isinstance(err, EngineError) and _DEVICE.search(str(err)) is not None


def daemon(engine):
    """Return what tells this run of a dockerd from every other, None where that cannot be told.

    Arguments:
        engine: the Engine.

    The process that listens on the socket; of one that systemd listens on, dockerd's own file tells.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(engine.host.removeprefix("unix://"))
            size = struct.calcsize("3i")
            process = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
        if process == 1:
            with open("/run/docker.pid", encoding="ascii") as stream:
                process = int(stream.read(20))
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stream:
            # The 22nd field is when it started; the second one, in brackets, may have spaces.
            return process, stream.read().rpartition(")")[2].split()[19]
    except (OSError, ValueError, IndexError):
        return None
