# SPDX-License-Identifier: MIT
"""Record each block write that reaches a disk, in its order, with the flushes between.

qemu-storage-daemon logs and passes on the writes, exports the disk as a file by FUSE, and a loop
device on that file, without a page cache of its own, is mounted: no virtual machine is needed.
"""

import contextlib
import os
import subprocess
import time
from pathlib import Path

from crash import disks
from crash.blocklog import BlockLog
from crash.errors import CrashError

# Sparse: only an upper bound. A log that grows past its end would be cut.
LOG_SIZE = 64 * 1024**3
START_SECONDS = 20


class Export:
    """Exports a disk as a file and logs what is written to it; a context manager that gives the file.

    Arguments:
        qemu: argument list that starts qemu-storage-daemon 8 or later.
        image: the disk, changed in place.
        directory: where the log and the exported file go.

    All of it is undone at the end, whatever happens in between. ``log.entries`` is complete then.
    """

    def __init__(self, qemu, image, directory):
        self.image, self.directory = Path(image), Path(directory)
        self.log_path = self.directory / "log.img"
        self.log, self.marks = None, []
        self._qemu = qemu
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        with self._stack:
            with open(self.log_path, "wb") as stream:
                stream.truncate(LOG_SIZE)
            self.log = BlockLog(self.log_path)
            self._stack.callback(self.log.close)
            given = self._use(self._export())
            self._stack = self._stack.pop_all()
        return given

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def _use(self, export):
        return export

    def _export(self):
        export = self.directory / "export.img"
        export.touch()
        said = self.directory / "qemu.log"
        argv = [
            "setpriv", "--pdeathsig", "KILL", *self._qemu,
            "--blockdev", f"driver=file,node-name=disk,filename={self.image},discard=unmap",
            "--blockdev", f"driver=file,node-name=log,filename={self.log_path}",
            "--blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512",
            "--export", f"type=fuse,id=export,node-name=logged,mountpoint={export},writable=on",
        ]
        with open(said, "wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._stack.callback(self._stop, process)
        deadline = time.monotonic() + START_SECONDS
        # The file has its size as soon as the export is mounted over it; nothing else tells of it.
        while not os.path.ismount(export):
            if process.poll() is not None or time.monotonic() > deadline:
                text = said.read_text(errors="replace").strip()
                raise CrashError(f"qemu-storage-daemon does not export the disk: {text or 'it says nothing'}")
            time.sleep(0.02)
        return export

    def _stop(self, process):
        # It flushes the disk and the log when it is asked to end.
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise CrashError("qemu-storage-daemon did not end when it was asked to") from None
        self.log.read_on()

    def mark(self, label):
        """Note that what is logged from here on belongs to the phase ``label``."""
        self.marks.append((self.log.read_on(), label))


class Recorder(Export):
    """Mounts a disk at disks.MOUNTPOINT and logs what is written to it; a context manager that gives its Layout.

    Arguments:
        mount_options: of ext4, besides "nodiscard".
        writeback: None, or at how many dirty bytes the kernel has to begin to write.

    The others are Export's.
    """

    def __init__(self, qemu, image, directory, mount_options="", writeback=None):
        super().__init__(qemu, image, directory)
        self._writeback = writeback
        self._options = ",".join(filter(None, (disks.MOUNT_OPTIONS, mount_options)))

    def _use(self, export):
        device = disks.run("losetup", "--direct-io=on", "--find", "--show", export).strip()
        detach = contextlib.ExitStack()
        detach.callback(disks.run, "losetup", "--detach", device, check=False)
        with detach:
            disks.MOUNTPOINT.mkdir(exist_ok=True)
            disks.run("mount", "-t", "ext4", "-o", self._options, device, disks.MOUNTPOINT)
            self._stack.callback(disks.unmount, export)
            if self._writeback:
                self._limit(device)
        # Detached while it is mounted, the device goes away with the mount, even if this process is killed.
        return disks.LAYOUT

    def _limit(self, device):
        """Let the kernel write early: with much memory short-lived files would never reach the disk."""
        number = os.stat(device).st_rdev
        bdi = Path(f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}")
        for name, value in (("strict_limit", "1"), ("max_bytes", str(self._writeback))):
            setting = bdi / name
            with contextlib.suppress(OSError):
                before = setting.read_text()
                setting.write_text(value)
                self._stack.callback(_put_back, setting, before)


def _put_back(setting, value):
    with contextlib.suppress(OSError):
        setting.write_text(value)
