# SPDX-License-Identifier: MIT
"""A disk of one's own for a measurement: an ext4 in a file, whose written bytes the kernel counts."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from bench.figures import BenchError

SECTOR = 512
RELEASE_SECONDS = 20
# Written back at once beyond this many bytes: what is written and removed soon counts all the same.
EAGER_BYTES = 16 * 1024 * 1024


class Disk:
    """A mounted ext4 of its own.

    Arguments:
        root: where it is mounted.
        device: its loop device, /dev/loopN.
    """

    def __init__(self, root, device):
        self.root, self.device = Path(root), device

    def written(self):
        """Return how many bytes the device was given to write so far."""
        fields = Path("/sys/block", Path(self.device).name, "stat").read_text().split()
        return int(fields[6]) * SECTOR

    @contextlib.contextmanager
    def eager_writeback(self):
        """Have the kernel write this disk's data back as soon as it is written, until the block ends."""
        number = Path("/sys/block", Path(self.device).name, "dev").read_text().strip()
        settings = Path("/sys/class/bdi", number)
        if not (settings / "max_bytes").exists():
            raise BenchError("this kernel has no /sys/class/bdi/*/max_bytes: use Linux 6.2 or later")
        # What max_bytes was set to is kept as a share of the memory, so the share is what is set back.
        before = {name: (settings / name).read_text() for name in ("strict_limit", "max_ratio_fine")}
        (settings / "strict_limit").write_text("1")
        (settings / "max_bytes").write_text(str(EAGER_BYTES))
        try:
            yield
        finally:
            for name, value in before.items():
                (settings / name).write_text(value)


@contextlib.contextmanager
def disk(scratch, mountpoint, size=3 * 1024 ** 3):
    """Make an ext4 of ``size`` bytes in ``scratch``, mount it and give the Disk; nothing of it is left."""
    image = Path(scratch, "disk.img")
    with open(image, "wb") as stream:
        stream.truncate(size)
    device = None
    try:
        # Nothing is left for the kernel to initialise later, when it would be counted.
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        device = run("losetup", "--find", "--show", "--direct-io=on", image).strip()
        Path(mountpoint).mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "ext4", device, mountpoint)
        try:
            yield Disk(mountpoint, device)
        finally:
            _unmount(mountpoint)
    finally:
        if device:
            run("losetup", "--detach", device)
        image.unlink()


def _unmount(mountpoint):
    # What dockerd started has its log open a moment longer than dockerd lives.
    deadline = time.monotonic() + RELEASE_SECONDS
    while True:
        try:
            run("umount", mountpoint)
            return
        except BenchError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def forget_cached(directory):
    """Have the files below ``directory`` read from the disk again the next time."""
    os.sync()
    for path in Path(directory).rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def allocated(directories):
    """Return how many bytes the files below directories take on their disk, each file once."""
    seen, total = set(), 0
    for directory in directories:
        for place, names, files in os.walk(directory):
            for name in (*names, *files):
                status = os.lstat(os.path.join(place, name))
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    total += status.st_blocks * SECTOR
    return total


def run(*argv):
    """Run a command of the system; return its output. Raises BenchError when it fails."""
    argv = [str(word) for word in argv]
    program = shutil.which(argv[0], path=os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin")
    if program is None:
        raise BenchError(f"{argv[0]} is not installed")
    done = subprocess.run([program, *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
