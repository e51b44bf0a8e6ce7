# SPDX-License-Identifier: MIT
"""Whether a dockerd is at work on a data root, and keeping others off it.

Three signs, each enough. dockerd holds a flock on its bbolt databases from its start to its end
(volumes/metadata.db among them), whatever its data root, PID file or PID namespace; holding those
locks ourselves keeps a dockerd that starts meanwhile from going on. Before it has opened them, a
process named dockerd whose data root is this very directory tells. And file systems of containers
that are mounted below the data root are in use by containers that outlived their dockerd.
"""

import contextlib
import fcntl
import json
import os
import stat

from composeapps import beneath
from composeapps.dockerstore import layout
from composeapps.errors import ComposeAppsError, LockedError

DATABASES = (
    layout.VOLUME_DATABASE, layout.NETWORK_DATABASE, layout.CONTENT_DATABASE, layout.CONTAINERD_DATABASE,
    "buildkit/snapshots.db", "buildkit/cache.db", "buildkit/metadata_v2.db", "buildkit/history.db",
    "buildkit/containerdmeta.db",
)


class BusyError(ComposeAppsError):
    """dockerd, or a container, uses the store."""

    exit_code = 11


@contextlib.contextmanager
def exclusive(root, background=False):
    """Hold the data root for one fsck.

    Arguments:
        root: the Root.
        background: only exclude other fscks; dockerd may live.

    Raises LockedError when another fsck is at work, BusyError when dockerd or a container is.
    """
    with contextlib.ExitStack() as held:
        try:
            # A descriptor of its own, opened anew: the lock goes with it.
            own = os.open(root.path, beneath.DIRECTORY)
            held.callback(os.close, own)
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"another fsck is at work on {root.path}: wait for it, or stop it") from None
        if not background:
            for path in DATABASES:
                _lock_database(root, path, held)
            _refuse_living(root)
            _refuse_mounts(root)
        yield


def _lock_database(root, path, held):
    try:
        with root.parent(path) as (directory, name):
            if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                return
            descriptor = os.open(name, beneath.FILE, dir_fd=directory)
    except OSError:
        return
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(f"dockerd is at work on {root.path} (it holds {path}): stop docker.service and "
                        "docker.socket first, or give --background") from None


def _refuse_living(root):
    own = os.fstat(root.fd)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/comm", "rb") as stream:
                if stream.read(20).strip() != b"dockerd":
                    continue
            with open(f"/proc/{name}/cmdline", "rb") as stream:
                words = [os.fsdecode(word) for word in stream.read(65536).split(b"\0")]
            found = os.stat(f"/proc/{name}/root/{_data_root(words, f'/proc/{name}/root')}")
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
            raise BusyError(f"dockerd is at work on {root.path} (process {name}): stop docker.service and "
                            "docker.socket first, or give --background")


def _data_root(words, process_root):
    for name in ("--data-root", "--graph", "-g"):
        if value := _option(words, name):
            return value
    path = _option(words, "--config-file") or "/etc/docker/daemon.json"
    try:
        with open(f"{process_root}/{path}", "rb") as stream:
            value = json.loads(stream.read(1024 * 1024)).get("data-root")
    except (OSError, ValueError, AttributeError, RecursionError):
        value = None
    return value if isinstance(value, str) and value else "/var/lib/docker"


def _option(words, name):
    for position, word in enumerate(words):
        if word == name and position + 1 < len(words):
            return words[position + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _refuse_mounts(root):
    prefix = os.fsencode(root.path).rstrip(b"/") + b"/"
    try:
        with open("/proc/self/mountinfo", "rb") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(b" ")
        # The kernel writes blank, tab, newline and backslash as octal numbers.
        where = fields[4].replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\012", b"\n")
        where = where.replace(b"\\134", b"\\")
        inner = where[len(prefix):]
        if where.startswith(prefix) and b"/" in inner and inner.split(b"/")[0] in (b"overlay2", b"containers"):
            raise BusyError(f"{layout.shown(os.fsdecode(where))} is still mounted, so a container uses it: stop the "
                            "containers, or check at the next boot")
