# SPDX-License-Identifier: MIT
"""Look into an ext4 image without mounting it, with e2fsprogs' debugfs."""

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from layercheck.errors import CheckError


@dataclass(frozen=True)
class Entry:
    """A file, directory or link: ``mode`` with the type, as in st_mode, ``size`` in bytes."""

    inode: int
    mode: int
    uid: int
    gid: int
    size: int


class RootImage:
    """One image.

    Arguments:
        path: the file with the file system.

    Methods raise CheckError when debugfs is missing or cannot read it.
    """

    def __init__(self, path):
        self.path = Path(path)

    def entries(self):
        """Return {path from "/": Entry} of all there is but lost+found."""
        found, level = {}, ["/"]
        while level:
            listings = self._debugfs([f"ls -p {directory}" for directory in level]).split("debugfs: ls -p ")[1:]
            level = []
            for listing in listings:
                directory, *lines = listing.splitlines()
                # "/inode/mode/uid/gid/name/size/", where a directory has no size.
                for fields in (line.split("/") for line in lines if line.count("/") == 7):
                    name = fields[5]
                    if name in (".", "..", "lost+found"):
                        continue
                    path = os.path.join(directory, name)
                    mode = int(fields[2], 8)
                    found[path] = Entry(int(fields[1]), mode, int(fields[3]), int(fields[4]), int(fields[6] or 0))
                    if stat.S_ISDIR(mode):
                        level.append(path)
        return found

    def copy(self, directory, target):
        """Copy ``directory`` of the image into the new directory ``target``; owners are not kept."""
        shutil.rmtree(target, ignore_errors=True)
        Path(target).mkdir(parents=True)
        self._debugfs([f"rdump {directory} {target}"])
        return Path(target) / Path(directory).name

    def _debugfs(self, commands):
        program = shutil.which("debugfs", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if not program:
            raise CheckError("debugfs is not installed: install Debian's package e2fsprogs")
        done = subprocess.run([program, "-f", "-", str(self.path)], input="\n".join(commands), capture_output=True,
                              text=True, errors="replace", check=False)
        wrong = [line for line in done.stderr.splitlines() if ": " in line and not line.startswith("debugfs 1.")
                 and "changing ownership" not in line]
        if done.returncode or wrong:
            raise CheckError(f"debugfs cannot read {self.path.name}: {(wrong or [f'status {done.returncode}'])[0]}")
        return done.stdout
