# SPDX-License-Identifier: MIT
"""Make an initramfs in Python: the archive, and the smallest one that mounts a disk's root.

Debian's generated initramfs carries udev, every storage driver and a compressed 17 MB, which
costs an emulated machine many seconds of its boot. A machine whose root is an ext4 on a virtio
disk needs one module and four programs.

Archive format: "newc", Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

import lzma
import os
import stat
from pathlib import Path

from .errors import EmulatorError

# klibc-utils' programs, which any root with initramfs-tools holds, need no C library of the root.
_KLIBC = "usr/lib/klibc/bin"

_DISK_INIT = """\
#!/bin/sh
export PATH=/bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
root= rootflags=rw init=/sbin/init
read -r cmdline </proc/cmdline
for word in $cmdline; do
    case $word in
        root=*) root=${word#root=} ;;
        init=*) init=${word#init=} ;;
        ro) rootflags=ro ;;
        rw) rootflags=rw ;;
    esac
done
for module in /modules/*.ko; do
    insmod "$module"
done
tries=0
until [ -b "$root" ] || [ $tries -ge 200 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
if ! mount -t ext4 -o "$rootflags" "$root" /root; then
    echo "initramfs: cannot mount root=$root as ext4" >/dev/kmsg
    exit 1
fi
mount -o move /dev /root/dev
umount /proc
exec run-init /root "$init" "$@" </root/dev/console >/root/dev/console 2>&1
"""


class Newc:
    """Collects the entries of a newc archive; ``bytes()`` of it is the whole archive.

    The same entries give the same bytes: no time, owner or inode number of the host gets in.
    """

    def __init__(self):
        self._parts = []
        self._inode = 0
        self._directories = set()

    def _entry(self, name, mode, data=b"", rdev=(0, 0)):
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._parts += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]

    def directory(self, name):
        """Add a directory and its parents, once."""
        for parent in [*reversed(Path(name).parents), Path(name)]:
            if str(parent) not in (".", "/") and str(parent) not in self._directories:
                self._directories.add(str(parent))
                self._entry(str(parent), stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o644):
        """Add a regular file with ``data`` (bytes)."""
        self.directory(str(Path(name).parent))
        self._entry(name, stat.S_IFREG | mode, data)

    def symlink(self, name, target):
        """Add a symbolic link."""
        self.directory(str(Path(name).parent))
        self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def character_device(self, name, major, minor):
        """Add a character device node."""
        self.directory(str(Path(name).parent))
        self._entry(name, stat.S_IFCHR | 0o600, rdev=(major, minor))

    def __bytes__(self):
        closing = Newc()
        closing._entry("TRAILER!!!", 0)
        return b"".join(self._parts + closing._parts)


def kernel_modules(modules_dir, names):
    """Return [(file name, contents)] of the modules ``names`` and all they need, in loading order.

    ``modules_dir`` is lib/modules/VERSION of some root. Compressed modules are unpacked. A name
    that the kernel has built in is left out. Raises EmulatorError for one that is not there at all.
    """
    modules_dir = Path(modules_dir)
    needs, where = {}, {}
    for line in _lines(modules_dir / "modules.dep"):
        path, _, dependencies = line.partition(":")
        where[_module_name(path)] = path
        needs[_module_name(path)] = [_module_name(dependency) for dependency in dependencies.split()]
    builtin = {_module_name(line) for line in _lines(modules_dir / "modules.builtin")}
    ordered = []

    def visit(name):
        if name in ordered or name in builtin:
            return
        if name not in where:
            raise EmulatorError(f"the kernel in {modules_dir} has no module '{name}'")
        for dependency in needs[name]:
            visit(dependency)
        ordered.append(name)

    for name in names:
        visit(name.replace("-", "_"))
    return [(f"{name}.ko", _module(modules_dir / where[name])) for name in ordered]


def _module_name(path):
    return Path(path.strip()).name.split(".")[0].replace("-", "_")


def _lines(path):
    try:
        return path.read_text().splitlines()
    except OSError as err:
        raise EmulatorError(f"cannot read {path}: {err.strerror}; run depmod for that kernel") from err


def _module(path):
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix != ".ko":
        raise EmulatorError(f"{path} is compressed in a way that is not known here; only .ko and .ko.xz are")
    return data


def disk_boot(root, version, modules=("virtio_blk",)):
    """Return an initramfs (bytes, not compressed) that mounts the disk of ``root=`` as ext4 and starts its init.

    ``root`` is the tree of the device's root: it gives klibc's programs (Debian's klibc-utils) and the
    modules of kernel ``version``. Uses ``root=``, ``init=``, ``ro`` and ``rw`` of the kernel's command line.
    Raises EmulatorError when ``root`` lacks them.
    """
    root = Path(root)
    archive = Newc()
    for name in ("dev", "proc", "root", "bin", "modules"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    libraries = sorted([*root.glob("usr/lib/klibc-*.so"), *root.glob("lib/klibc-*.so")])
    if not libraries:
        raise EmulatorError(f"{root} lacks klibc: add Debian's package klibc-utils to it")
    for library in {path.name: path for path in libraries}.values():
        archive.file(f"usr/lib/{library.name}", library.read_bytes(), 0o755)
    archive.symlink("lib", "usr/lib")  # the programs name the library in /usr/lib since trixie, in /lib before
    for program in ("sh", "mount", "umount", "insmod", "sleep", "run-init"):
        archive.file(f"bin/{program}", (root / _KLIBC / program).read_bytes(), 0o755)
    for number, (name, data) in enumerate(kernel_modules(root / "usr/lib/modules" / version, modules)):
        archive.file(f"modules/{number:02d}-{name}", data)
    archive.file("init", _DISK_INIT.encode(), 0o755)
    return bytes(archive)
