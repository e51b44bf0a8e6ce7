# SPDX-License-Identifier: MIT
"""File systems written into files: without mounting anything, and the same bytes each time."""

import os
import shutil
import subprocess
import uuid
from pathlib import Path

from fastlane.errors import BuildError

PACKAGES = {
    "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs", "tune2fs": "e2fsprogs", "mkfs.erofs": "erofs-utils",
    "mkfs.vfat": "dosfstools", "mcopy": "mtools", "sfdisk": "fdisk", "bmaptool": "bmap-tools", "zstd": "zstd",
}
BLOCK = 4096
_BELOW = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def run(name, *arguments, epoch=None, text=None):
    """Run a program; return what it printed.

    Arguments:
        name: its name; where it is not installed, the package to install is named.
        arguments: its arguments.
        epoch: the time, in seconds since 1970, that it is to take for now.
        text: what it reads.

    Raises BuildError with the last line that it printed.
    """
    program = shutil.which(name, path=_BELOW)
    if not program:
        raise BuildError(f"{name} is not installed: install Debian's package {PACKAGES[name]}")
    env = {**os.environ, "LC_ALL": "C", "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    if epoch is not None:
        env |= {"SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch)}
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, env=env,
                          **({"input": text} if text is not None else {"stdin": subprocess.DEVNULL}))
    if done.returncode:
        raise BuildError(f"{name}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return done.stdout


def content(tree):
    """Return (KiB that the files of a tree take in blocks of 4 KiB, inodes); a hard link counts once."""
    blocks, inodes, seen = 0, 0, set()
    for directory, _, names in os.walk(tree):
        blocks, inodes = blocks + 1, inodes + 1
        for name in names:
            info = os.lstat(os.path.join(directory, name))
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                blocks, inodes = blocks - (-info.st_size // BLOCK), inodes + 1
    return blocks * (BLOCK // 1024), inodes


def ext4(target, tree, size, *, label="", identifier="", options="", epoch):
    """Write a tree into a new ext4 file system.

    Arguments:
        target: the file to make.
        tree: the directory whose content it gets, with owners, modes and extended attributes.
        size: KiB.
        label: the file system's.
        identifier: its UUID.
        options: more of mke2fs's options, as a kickstart file has them.
        epoch: seconds since 1970; no time in the file system is later.

    Raises BuildError.
    """
    seed = uuid.uuid5(uuid.UUID(identifier) if identifier else uuid.NAMESPACE_OID, str(epoch))
    run("mke2fs", "-q", "-t", "ext4", "-b", BLOCK, *(options.split() or ["-F"]), "-E",
        f"root_owner=0:0,hash_seed={seed}", *(["-L", label] if label else []),
        *(["-U", identifier] if identifier else []), "-d", tree, target, f"{size}k", epoch=epoch)
    run("debugfs", "-w", "-f", "-", target, epoch=epoch, text="\n".join(_times(tree, epoch)) + "\n")


def _times(tree, epoch):
    """Return debugfs's commands that leave no time of the build in the file system."""
    yield f"set_current_time @{epoch}"
    for directory, names, files in os.walk(tree):
        below = "/" + os.path.relpath(directory, tree) if directory != str(tree) else ""
        for path in ["/"] * (not below) + [f"{below}/{name}" for name in (*names, *files)]:
            name = '"' + path.replace('"', '""') + '"'
            late = os.lstat(os.path.join(tree, path[1:])).st_mtime > epoch
            for field in ("atime", "ctime", "crtime", *(["mtime"] * late)):
                yield f"set_inode_field {name} {field} @{epoch}"
                yield f"set_inode_field {name} {field}_extra 0"
    for field in ("wtime", "mkfs_time", "lastcheck"):
        yield f"set_super_value {field} @{epoch}"
    yield "set_super_value mtime 0"
    # What was written meanwhile does not count.
    yield "set_super_value kbytes_written 0"


def erofs(target, tree, *, identifier="", options="", epoch):
    """Write a tree into a new EROFS file system; arguments as for ``ext4``. Raises BuildError."""
    run("mkfs.erofs", *options.split(), f"-T{epoch}", *(["-U", identifier] if identifier else []), target, tree,
        epoch=epoch)


def vfat(target, tree, size, *, label="", identifier="", epoch):
    """Write a tree into a new FAT file system; ``identifier`` is 0x and eight digits, else as for ``ext4``."""
    run("mkfs.vfat", "--invariant", "-C", *(["-n", label.upper()] if label else []),
        *(["-i", identifier.removeprefix("0x")] if identifier else []), target, size, epoch=epoch)
    for directory, names, files in os.walk(tree):
        for name in (*names, *files):
            os.utime(os.path.join(directory, name), (epoch, epoch))
    names = sorted(Path(tree).iterdir())
    if names:
        run("mcopy", "-s", "-p", "-m", "-i", target, *names, "::", epoch=epoch)


def copy_into(source, target, offset):
    """Copy a file's data, without its holes, into an open file at an offset in bytes."""
    with open(source, "rb") as stream:
        end, position = os.fstat(stream.fileno()).st_size, 0
        while position < end:
            try:
                start = os.lseek(stream.fileno(), position, os.SEEK_DATA)
            except OSError:
                return
            position = os.lseek(stream.fileno(), start, os.SEEK_HOLE)
            os.lseek(stream.fileno(), start, os.SEEK_SET)
            while start < position:
                data = os.read(stream.fileno(), min(position - start, 1 << 20))
                # mke2fs writes out tables that are all zero.
                if data.strip(b"\0"):
                    os.pwrite(target.fileno(), data, offset + start)
                start += len(data)
