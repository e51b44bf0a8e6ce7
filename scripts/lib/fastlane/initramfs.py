# SPDX-License-Identifier: MIT
"""Make an initramfs in Python: the archive, and a kernel's modules in loading order.

Archive format: "newc", Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

import lzma
import os
import stat
from pathlib import Path


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
    that the kernel has built in is left out. Raises LookupError for one that is not there at all.
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
            raise LookupError(f"the kernel in {modules_dir} has no module '{name}'")
        for dependency in needs[name]:
            visit(dependency)
        ordered.append(name)

    for name in names:
        visit(name.replace("-", "_"))
    return [(f"{name}.ko", _module(modules_dir / where[name])) for name in ordered]


def _module_name(path):
    return Path(path.strip()).name.split(".")[0].replace("-", "_")


def _lines(path):
    return path.read_text().splitlines()


def _module(path):
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix != ".ko":
        raise LookupError(f"{path} is compressed in a way that is not known here; only .ko and .ko.xz are")
    return data
