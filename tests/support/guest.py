# SPDX-License-Identifier: MIT
"""A guest that boots in seconds: a Debian kernel, and busybox in an initramfs with a root shell on ttyS0.

Words of the kernel's command line steer it: ``guest.panic`` panics once the kernel has started it,
``guest.hang`` says "guest hangs" and then nothing more, ``guest.emergency`` shows systemd's words for a
failed boot. /dev/vda, if there is one, is mounted at /mnt.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hostsetup
from fastlane.initramfs import Newc, kernel_modules

MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
# Debian's kernel for virtual machines, else Ubuntu's.
KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual")

INIT = r"""#!/bin/busybox sh
export PATH=/bin HOME=/root
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in /modules/*.ko; do insmod "$module"; done
[ -b /dev/vda ] && mount -t ext4 /dev/vda /mnt
ip link set lo up
if [ -d /sys/class/net/eth0 ]; then
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
    ip route add default via 10.0.2.2
fi
case $(cat /proc/cmdline) in
    *guest.panic*) echo c >/proc/sysrq-trigger ;;
    *guest.hang*) echo "the guest hangs"; while :; do sleep 1000; done ;;
    *guest.emergency*) echo "You are in emergency mode. Type journalctl -xb"; while :; do sleep 1000; done ;;
esac
cd /root
export PS1='root@tiny:~# '
while :; do setsid sh -c 'exec sh -i </dev/ttyS0 >/dev/ttyS0 2>&1'; done
"""


@dataclass(frozen=True)
class Guest:
    """``kernel`` and ``initrd`` to boot with ``cmdline``."""

    kernel: Path
    initrd: Path
    cmdline: str = "console=ttyS0 quiet"


def make(cache=None):
    """Return a Guest from ``cache`` (default: under build/cache), made there first when it is missing.

    Downloads two packages with apt-get the first time.
    """
    cache = Path(cache) if cache else hostsetup.BUILD / "cache" / "test-guest"
    packages, busybox = _packages()
    place = cache / re.sub(r"[^A-Za-z0-9.-]+", "_", "_".join(packages))
    if not place.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=cache))
        try:
            # Two test runs may do this at once; the first to finish wins.
            (scratch / "out").mkdir()
            _extract([*packages, busybox], scratch)
            kernel = next((scratch / "root").glob("boot/vmlinuz-*"))
            shutil.copyfile(kernel, scratch / "out" / "vmlinuz")
            _collect(scratch / "root", kernel.name.removeprefix("vmlinuz-"), scratch / "out")
            try:
                os.rename(scratch / "out", place)
            except OSError:
                if not place.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    initrd = place / "initrd.img"
    archive = bytes(_archive(place))
    if not initrd.exists() or initrd.read_bytes() != archive:
        with tempfile.NamedTemporaryFile(dir=place, delete=False) as stream:
            stream.write(archive)
        os.replace(stream.name, initrd)
    return Guest(place / "vmlinuz", initrd)


def _depends(package):
    done = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", package], capture_output=True, text=True, check=False,
    )
    return re.findall(r"\b(linux-(?:image|modules)-[0-9][^\s,(]*)", " ".join(
        line for line in done.stdout.splitlines() if line.startswith("Depends:")
    ))


def _packages():
    for attempt in range(2):
        for meta in KERNELS:
            images = [name for name in _depends(meta) if name.startswith("linux-image-")]
            if images:
                modules = [name for name in _depends(images[0]) if name.startswith("linux-modules-")]
                return [images[0], *modules], "busybox-static"
        if not attempt:
            subprocess.run(["apt-get", "update"], check=True, stdout=subprocess.DEVNULL)
    raise RuntimeError(f"apt knows none of the kernels {', '.join(KERNELS)}")


def _extract(packages, scratch):
    subprocess.run(
        ["apt-get", "download", "-o", "APT::Sandbox::User=root", *packages],
        cwd=scratch, check=True, stdout=subprocess.DEVNULL,
    )
    for archive in scratch.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(archive), str(scratch / "root")], check=True)


def _collect(root, version, out):
    depmod = shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin:/bin")
    subprocess.run([depmod, "-b", str(root), version], check=True)
    places = (root / "lib/modules" / version, root / "usr/lib/modules" / version)
    modules = next(path for path in places if path.is_dir())
    (out / "modules").mkdir()
    for number, (name, data) in enumerate(kernel_modules(modules, MODULES)):
        (out / "modules" / f"{number:02d}-{name}").write_bytes(data)
    busybox = next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.is_file())
    shutil.copy(busybox, out / "busybox")


def _archive(place):
    archive = Newc()
    for name in ("dev", "proc", "sys", "mnt", "root", "tmp", "bin"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", (place / "busybox").read_bytes(), 0o755)
    applets = subprocess.run([str(place / "busybox"), "--list"], capture_output=True, text=True, check=True).stdout
    for applet in applets.split():
        if applet != "busybox":
            archive.symlink(f"bin/{applet}", "busybox")
    for module in sorted((place / "modules").iterdir()):
        archive.file(f"modules/{module.name}", module.read_bytes())
    archive.file("init", INIT.encode(), 0o755)
    return archive


def make_disk(path, files, megabytes=16):
    """Make at ``path`` a raw disk with an ext4 that holds ``files``, {name: contents (bytes)}."""
    with tempfile.TemporaryDirectory() as tree:
        for name, data in files.items():
            target = Path(tree, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, str(path), f"{megabytes}M"], check=True)
    return Path(path)
