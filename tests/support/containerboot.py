# SPDX-License-Identifier: MIT
"""A disk's own systemd and dockerd, booted in namespaces of this machine: seconds in place of an emulator's minutes.

The disk is a loop device with its partitions, so what looks for the disk that the root is on finds it. What a kernel
of the disk's own and udev do is not tried here; the mounts of its fstab are by links below /run, which systemd takes
in a container, too.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from emulator.shell import CommandResult

CGROUPS = next((path for path in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"))
                if (path / "cgroup.procs").exists()), None)
LOSETUP, MKE2FS = "/usr/sbin/losetup", "/usr/sbin/mke2fs"

_OWN = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup")

# The kernel of the machine that tests may have no FAT; the wish for a reset, all that is written there, needs none.
_VFAT = """#!/bin/sh
case ,$4, in *,ro,*) how=ro ;; *) how=rw ;; esac
exec mount -i -t ext4 -o "$how" "$1" "$2"
"""

# Arguments: the loop device, a directory, the names of the partitions.
_ENTER = r"""
set -e
loop=$1 root=$2; shift 2
mount --make-rprivate /
links=$root.links; mkdir -p "$links"; number=0
for name; do
    number=$((number + 1))
    ln -sfn "/dev/${loop#/dev/}p$number" "$links/$name"
    [ "$name" != root ] || mount "${loop}p$number" "$root"
done
for kind in proc sysfs; do mount -t $kind $kind "$root/${kind%fs}"; done
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do cp -a "/dev/$name" "$root/dev/"; done
cp -a "$loop" "${loop}p"* "$root/dev/"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"; ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755 tmpfs "$root/run"; mount -t tmpfs tmpfs "$root/tmp"
cp -a "$links" "$root/run/partitions"
# The machine's kernel may not read this kind of table, so it does not tell the names.
number=0
for name; do
    number=$((number + 1))
    told=/sys/class/block/${loop#/dev/}p$number/uevent
    [ -e "$told" ] || continue
    { grep -v '^PARTNAME=' "$told"; echo "PARTNAME=$name"; } > "$root/run/uevent.$name"
    mount --bind "$root/run/uevent.$name" "$root$(readlink -f "$told")"
    mount -o remount,ro,bind "$root$(readlink -f "$told")"
done
# A kernel's own /dev has a node for a partition that is made.
mkdir -p "$root/run/udev/rules.d"
printf '%s\n' "ACTION==\"add\", KERNEL==\"${loop#/dev/}p*\", PROGRAM=\"/bin/sh -c 'test -e /dev/%k || \
mknod -m 660 /dev/%k b %M %m'\"" > "$root/run/udev/rules.d/10-nodes.rules"
cp "$root.vfat" "$root/run/mount.vfat"; chmod 755 "$root/run/mount.vfat"
# journald, which moves its files to /var otherwise, hangs there.
mkdir -p "$root/run/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\n' > "$root/run/systemd/journald.conf.d/volatile.conf"
# The root stays as it is: what a container needs to be otherwise lies over it.
sed -n -e '\,/boot ,d' -e 's/,x-systemd.growfs//' \
    -e 's,^/dev/disk/composeapps/,/run/partitions/,p' "$root/etc/fstab" > "$root/run/fstab"
mount --bind "$root/run/fstab" "$root/etc/fstab"
[ -e "$root/sbin/mount.vfat" ] || : > "$root/sbin/mount.vfat"
mount --bind "$root/run/mount.vfat" "$root/sbin/mount.vfat"
mkdir "$root/run/outside"
cd "$root"; pivot_root . run/outside
umount --lazy /run/outside; rmdir /run/outside
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init systemd.unit=multi-user.target
"""


class ContainerDevice:
    """A device whose disk is a file; a context manager, whose end leaves no process and nothing mounted.

    ``run`` is that of an emulator's Machine, for what the two have in common.

    Arguments:
        disk: the disk's file, which is written to.
        partitions: the names of its partitions, in the order of their numbers.
        directory: an empty one, for the root's mount point and the log.
    """

    def __init__(self, disk, partitions, directory):
        self.disk, self.partitions, self._directory = Path(disk), list(partitions), Path(directory)
        self._init = self._process = self.loop = None

    def __enter__(self):
        self.loop = _output(LOSETUP, "--partscan", "--find", "--show", self.disk)
        subprocess.run(["partx", "--add", self.loop], check=False, capture_output=True)
        _output(MKE2FS, "-q", "-F", "-t", "ext4", self.partition("boot"))
        return self

    def __exit__(self, *_exc):
        self.power_cut()
        _output(LOSETUP, "--detach", self.loop)

    def partition(self, name):
        """Return the device of a partition."""
        return f"{self.loop}p{self.partitions.index(name) + 1}"

    def start(self):
        """Boot; return when the system is initialized (sysinit.target), or cannot be. Raises AssertionError."""
        root, group = self._directory / "root", CGROUPS / f"composeapps-boot-{os.getpid()}"
        root.mkdir(exist_ok=True)
        group.mkdir(exist_ok=True)
        Path(f"{root}.vfat").write_text(_VFAT)
        argv = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), "unshare", *_OWN, "--fork",
                "--kill-child", "sh", "-c", _ENTER, "sh", self.loop, str(root), *self.partitions]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not self._ready():
            # systemd tells nobody outside of its namespaces.
            assert self._process.poll() is None and time.monotonic() < deadline, self._log()
            time.sleep(0.1)
        self.run("systemctl start sysinit.target", timeout=300, check=False)

    def _ready(self):
        first = self._process.pid
        with contextlib.suppress(OSError, IndexError):
            self._init = int(Path(f"/proc/{first}/task/{first}/children").read_text().split()[0])
            return Path(f"/proc/{self._init}/comm").read_text() == "systemd\n" and Path(
                f"/proc/{self._init}/root/run/systemd/private").is_socket()
        return False

    def _log(self):
        return (self._directory / "log").read_text(errors="replace")[-3000:]

    def run(self, command, timeout=60, check=True):
        """Run a command in the device's shell; return a CommandResult. Raises AssertionError, TimeoutExpired."""
        done = subprocess.run(
            ["nsenter", "--target", str(self._init), *_OWN, "--root", "--wd", "env", "-i",
             "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "sh", "-c", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False)
        result = CommandResult(done.stdout, done.returncode)
        assert not check or not result.exit_status, f"{command}: {result.exit_status}: {result.stdout}"
        return result

    def power_cut(self):
        """End all of it at once; the disk has what was written."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._init or self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = self._init = None
        # systemd's own groups are below it.
        for directory, _names, _files in os.walk(CGROUPS / f"composeapps-boot-{os.getpid()}", topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def _output(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words[0]}: {done.stderr}"
    return done.stdout.strip()
