# SPDX-License-Identifier: MIT
"""The disk of an image, written without mounting and published in one step.

One ext4 file system, which a kernel boots from directly; or, for an image of which BitBake would make a wic
file, the disk with the partitions of its kickstart file, which boots by EFI, too.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

from composeapps import durable
from fastlane import filesystems, partitions, rootfs, wks
from fastlane.errors import BuildError

# Inode tables, journal and block groups: a share of the size on top of the files.
OVERHEAD = 1.06


def make(d, plan):
    """Write the disk of an image recipe, whose data store is ``d``, into IMGDEPLOYDIR.

    The file is sparse, owners and extended attributes are kept, no loop mount is needed. ``plan`` is the build's.
    Raises BuildError when a tool is missing or fails, and removes what it wrote.
    """
    root, target = d.getVar("IMAGE_ROOTFS"), Path(d.getVar("IMGDEPLOYDIR"), "disk")
    if d.getVar("FASTLANE_WKS"):
        table = partitioned(d, plan.base, target)
        Path(f"{target}.json").write_text(json.dumps(table))
        return
    extra = sum(int(part) for part in d.getVar("IMAGE_ROOTFS_EXTRA_SPACE").split("+") if part.strip())
    single(root, target, extra * 1024, d.getVar("FASTLANE_MOUNT_OPTIONS") or "")


def single(root, target, extra, mount_options=""):
    """Write the tree ``root`` into the new ext4 image ``target`` with about ``extra`` bytes free.

    ``mount_options``, separated by commas, are kept in the file system: whoever mounts it gets them.
    Raises BuildError when a tool is missing or fails, and removes what it wrote.
    """
    size = int((filesystems.content(root)[0] * 1024 + extra) * OVERHEAD) + (64 << 20)
    try:
        filesystems.run("mke2fs", "-q", "-F", "-t", "ext4", "-b", filesystems.BLOCK, "-m", "1", "-L", "root",
                        "-E", "root_owner=0:0", "-d", root, target, f"{size // 1024}k")
        if mount_options:
            filesystems.run("tune2fs", "-E", f"mount_opts={mount_options}", target)
    except BuildError as err:
        Path(target).unlink(missing_ok=True)
        raise BuildError(f"the file system of {size >> 20} MiB cannot be written: {err}") from None


def partitioned(d, base, target):
    """Write the disk of an image recipe by its kickstart file, as wic does.

    Arguments:
        d: the recipe's data store.
        base: a fastlane.base.Base, for the kernel, the initramfs and systemd-boot.
        target: the file to make; sparse.

    Returns the partitions as partitions.make does. Raises BuildError.
    """
    layout = wks.read(d.getVar("_WKS_TEMPLATE"), os.path.basename(d.getVar("FASTLANE_WKS")))
    machine = d.getVar("FASTLANE_EFI")
    if d.getVar("EFI_PROVIDER") != "systemd-boot" or not machine:
        raise BuildError(f"the fast lane boots by EFI with systemd-boot only, not with '{d.getVar('EFI_PROVIDER')}'")
    boot = partitions.systemd_boot(layout, {d.getVar("KERNEL_IMAGETYPE"): base.kernel, "initrd": base.initrd},
                                   base.tree / f"usr/lib/systemd/boot/efi/systemd-boot{machine}.efi", machine)
    return partitions.make(layout, d.getVar("IMAGE_ROOTFS"), target, d.getVar("WORKDIR") + "/partitions", boot,
                           int(d.getVar("REPRODUCIBLE_TIMESTAMP_ROOTFS")))


def publish(d, plan):
    """Make a finished disk the current image in FASTLANE_DEPLOY.

    The description ``IMAGE_NAME.json`` is replaced last and names files that nothing overwrites, so
    whoever reads it gets a kernel, an initrd and a disk that belong together, at any moment.
    Returns its path. Links with plain names (``IMAGE_NAME.ext4`` or ``.wic``, ``vmlinuz``, ``initrd.img``) are for
    people.
    """
    directory, name = Path(d.getVar("FASTLANE_DEPLOY")), d.getVar("IMAGE_NAME")
    directory.mkdir(parents=True, exist_ok=True)
    disk = Path(d.getVar("IMGDEPLOYDIR"), "disk")
    kind = "wic" if d.getVar("FASTLANE_WKS") else "ext4"
    tag = hashlib.sha256(f"{plan.base.key} {d.getVar('FASTLANE_SIGNATURE')}".encode()).hexdigest()[:12]
    files = {
        "disk": (disk, f"{name}-{tag}.{kind}", f"{name}.{kind}"),
        "kernel": (plan.base.kernel, f"vmlinuz-{plan.base.key}", "vmlinuz"),
        "initrd": (plan.base.initrd, f"initrd-{plan.base.key}.img", "initrd.img"),
    }
    cmdline, more = d.getVar("FASTLANE_CMDLINE"), {}
    if kind == "wic":
        table = json.loads(Path(f"{disk}.json").read_text())
        root = next(part for part in table if part["mountpoint"] == "/")
        cmdline = f"root=PARTUUID={root['uuid']} {d.getVar('COMPOSEAPPS_KERNEL_ARGUMENTS')}"
        more = {"firmware": "efi", "partitions": table}
    for source, file, _ in files.values():
        _place(source, directory / file, move=source == disk)
    description = {
        "machine": d.getVar("MACHINE"),
        **{what: file for what, (_, file, _) in files.items()},
        "cmdline": " ".join(cmdline.split()),
        "apps": rootfs.preloaded(d),
        "contents": rootfs.installed(plan),
        **more,
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
        if "." in path.stem:
            continue
        description = json.loads(path.read_text())
        kept |= {description.get(key) for key in ("disk", "kernel", "initrd")}
    for pattern in (f"{name}-????????????.ext4", f"{name}-????????????.wic*", "vmlinuz-*", "initrd-*.img", ".*.new"):
        for path in directory.glob(pattern):
            # What a release has besides goes with the disk that it was made from.
            if path.name.partition(".wic")[0] + ".wic" * (".wic" in path.name) not in kept and not path.is_symlink():
                path.unlink()
