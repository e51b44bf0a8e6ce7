# SPDX-License-Identifier: MIT
"""Disks in files: making one, mounting one, and what lies where on it."""

import contextlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from composeapps.cli.config import Config
from crash.errors import CrashError
from crash.namespaces import HOME

SIZE = 768 * 1024 * 1024
RELEASE_SECONDS = 20
MOUNTPOINT = HOME / "disk"
# Without discard: a discarded block comes back as zeros, which hides what a cut leaves there.
MOUNT_OPTIONS = "nodiscard"


@dataclass(frozen=True)
class Layout:
    """Where things lie on a mounted disk: as on a device's data partition."""

    root: Path

    @property
    def docker(self):
        return self.root / "docker"

    @property
    def store(self):
        return self.root / "sota" / "reset-apps"

    @property
    def compose_root(self):
        return self.root / "sota" / "compose-apps"

    @property
    def state(self):
        return self.root / "agent"

    def config(self, **more):
        """Return the agent's Config for this disk."""
        values = {"store": self.store, "compose_root": self.compose_root, "state_dir": self.state,
                  "factory_file": HOME / "no-factory.json", "factory_store": HOME / "no-factory"}
        return Config(**{**values, **more})


LAYOUT = Layout(MOUNTPOINT)


def run(*argv, check=True):
    """Run a command of the system; return its output. Raises CrashError when it fails."""
    path = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    argv = [str(word) for word in argv]
    program = shutil.which(argv[0], path=path)
    if program is None:
        raise CrashError(f"{argv[0]} is not installed")
    done = subprocess.run([program, *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", check=False)
    if check and done.returncode:
        raise CrashError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


def make(path, journal_mb=8):
    """Make an empty ext4 in the file ``path``; nothing is left for the kernel to initialise later."""
    with open(path, "wb") as stream:
        stream.truncate(SIZE)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-J", f"size={journal_mb}",
        "-E", "lazy_itable_init=0,lazy_journal_init=0", path)


def copy(source, target):
    """Copy a disk; what is a hole stays one."""
    run("cp", "--sparse=auto", source, target)


@contextlib.contextmanager
def mounted(image, options=MOUNT_OPTIONS, directory=MOUNTPOINT):
    """Mount the disk ``image`` and give its Layout; ext4 replays its journal as at a boot.

    When this ends nobody writes to the image any more.
    """
    directory.mkdir(exist_ok=True)
    run("mount", "-t", "ext4", "-o", f"loop,{options}", image, directory)
    try:
        yield Layout(directory)
    finally:
        unmount(image, directory)


def unmount(image, directory=MOUNTPOINT):
    """Unmount a disk and return when no loop device has its file any more.

    A killed dockerd's mount namespace holds the file system a moment longer than dockerd lives; its
    last writes must not go into a file that is already used for something else.
    """
    run("umount", directory)
    deadline = time.monotonic() + RELEASE_SECONDS
    while run("losetup", "--associated", image).strip():
        if time.monotonic() > deadline:
            raise CrashError(f"{image} is still mounted by another process {RELEASE_SECONDS} s after it was unmounted")
        time.sleep(0.01)
