# SPDX-License-Identifier: MIT
"""The disk of an image: one ext4 file system, written without mounting, published in one step."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from composeapps import durable
from fastlane import rootfs
from fastlane.errors import BuildError

BLOCK = 4096
# Inode tables, journal and block groups: a share of the size on top of the files.
OVERHEAD = 1.06


def make(root, target, extra, mount_options=""):
    """Write the tree ``root`` into the new ext4 image ``target`` with about ``extra`` bytes free.

    The file is sparse, owners and extended attributes are kept, and no loop mount is needed.
    ``mount_options``, separated by commas, are kept in the file system: whoever mounts it gets them.
    Raises BuildError when a tool is missing or fails, and removes what it wrote.
    """
    size = int((_blocks(root) * BLOCK + extra) * OVERHEAD) + (64 << 20)
    try:
        _run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-m", "1", "-L", "root",
             "-E", "root_owner=0:0", "-d", str(root), str(target), f"{size // 1024}k")
        if mount_options:
            _run("tune2fs", "-E", f"mount_opts={mount_options}", str(target))
    except BuildError as err:
        Path(target).unlink(missing_ok=True)
        raise BuildError(f"the file system of {size >> 20} MiB cannot be written: {err}") from None


def _run(name, *arguments):
    program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not program:
        raise BuildError(f"{name} is not installed: install Debian's package e2fsprogs")
    done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError((done.stderr.strip().splitlines() or ["no reason given"])[-1])


def _blocks(root):
    """Return how many blocks the files of a tree take; a hard link counts once."""
    total, seen = 0, set()
    for directory, _, names in os.walk(root):
        total += 1
        for name in names:
            info = os.lstat(os.path.join(directory, name))
            if info.st_ino not in seen:
                seen.add(info.st_ino)
                total += -(-info.st_size // BLOCK)
    return total


def publish(plan, disk, directory, name, machine, cmdline):
    """Make a finished disk the current image in ``directory``.

    The description ``<name>.json`` is replaced last and names files that nothing overwrites, so
    whoever reads it gets a kernel, an initrd and a disk that belong together, at any moment.
    Returns its path. Links with plain names (``<name>.ext4``, ``vmlinuz``, ``initrd.img``) are for people.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    recipe = plan.image
    tag = hashlib.sha256(f"{plan.base.key} {recipe.d.getVar('FASTLANE_SIGNATURE')}".encode()).hexdigest()[:12]
    files = {
        "disk": (disk, f"{name}-{tag}.ext4", f"{name}.ext4"),
        "kernel": (plan.base.kernel, f"vmlinuz-{plan.base.key}", "vmlinuz"),
        "initrd": (plan.base.initrd, f"initrd-{plan.base.key}.img", "initrd.img"),
    }
    for source, file, _ in files.values():
        _place(source, directory / file, move=source == disk)
    description = {
        "machine": machine,
        **{what: file for what, (_, file, _) in files.items()},
        "cmdline": " ".join(cmdline.split()),
        "apps": rootfs.preloaded(recipe.d),
        "contents": rootfs.installed(plan),
    }
    path = directory / f"{name}.json"
    durable.write_file(path, json.dumps(description, indent=2, sort_keys=True).encode() + b"\n")
    for _, file, link in files.values():
        _link(directory / link, file)
    _drop_old(directory, name)
    return path


def _place(source, target, move):
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    if not move:
        if target.exists():
            return
        shutil.copyfile(source, temporary)
        source = temporary
    with open(source, "rb") as stream:
        os.fsync(stream.fileno())
    durable.replace(source, target)


def _link(link, target):
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.rename(temporary, link)


def _drop_old(directory, name):
    """Remove disks of this image and kernels that no description in the directory names any more."""
    kept = set()
    for path in directory.glob("*.json"):
        description = json.loads(path.read_text())
        kept |= {description.get(key) for key in ("disk", "kernel", "initrd")}
    for pattern in (f"{name}-????????????.ext4", "vmlinuz-*", "initrd-*.img", ".*.new"):
        for path in directory.glob(pattern):
            if path.name not in kept and not path.is_symlink():
                path.unlink()
