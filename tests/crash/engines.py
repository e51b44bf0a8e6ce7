# SPDX-License-Identifier: MIT
"""The dockerd that is tried: stock or patched, out of one root that also has QEMU's storage daemon."""

from dataclasses import dataclass
from pathlib import Path

from crash.disks import LAYOUT
from crash.namespaces import HOME
from moby import build
from moby.root import engine_root
from support.engine import DockerDaemon

NAMES = ("stock", "patched")


@dataclass(frozen=True)
class ChosenEngine:
    """``root`` is a Debian root; ``dockerd`` the program to run instead of the root's own, or None."""

    name: str
    root: Path
    dockerd: Path | None = None

    @property
    def qemu(self):
        """The argument list that starts QEMU's storage daemon, outside of the root but with its libraries."""
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        loader = self.root / "lib64/ld-linux-x86-64.so.2"
        return [str(loader), "--library-path", str(libraries), str(self.root / "usr/bin/qemu-storage-daemon")]

    @property
    def compose_command(self):
        """The argument list that starts docker compose."""
        return (str(self.root / "usr/libexec/docker/cli-plugins/docker-compose"),)

    def daemon(self):
        """Return a DockerDaemon, not yet started, on the disk that is mounted at disks.MOUNTPOINT."""
        more = {"dockerd": self.dockerd} if self.dockerd else {}
        daemon = DockerDaemon(self.root, HOME, env={"DOCKER_LOAD_ROOTS": str(LAYOUT.store)}, **more)
        daemon.data_root = LAYOUT.docker
        return daemon


def find(name, progress=None):
    """Return the ChosenEngine "stock" or "patched", made when it is not in the cache; raises BuildError."""
    dockerd = build.patched(progress) / "dockerd" if name == "patched" else None
    return ChosenEngine(name, engine_root(progress), dockerd)
