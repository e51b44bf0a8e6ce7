# SPDX-License-Identifier: MIT
"""A disk with partitions, by the kickstart file of the image: what wic makes of it, from the same root."""

import os
import shutil
from pathlib import Path

from fastlane import filesystems, trees
from fastlane.errors import BuildError

SECTOR = 512
MEBIBYTE = 1 << 20
# KiB that wic's source "bootimg_efi" leaves free on the boot partition.
_BOOT_SPACE = 16 * 1024
_GPT_SECTORS = 34


def make(layout, root, target, work, boot, epoch):
    """Write a disk.

    Arguments:
        layout: a fastlane.wks.Layout.
        root: the root file system's tree.
        target: the file to make; sparse.
        work: a directory for what is made on the way; emptied.
        boot: a function that puts the boot partition's files into a directory, by (directory, Partition, PARTUUID
            of the root).
        epoch: seconds since 1970; no time on the disk is later.

    Returns a list of {name, mountpoint, fstype, type, uuid, start, size}, in bytes.
    Raises BuildError when a tool is missing or fails, and removes what it wrote.
    """
    work = Path(work)
    trees.remove_tree(work)
    work.mkdir(parents=True)
    try:
        made = [(part, _file_system(layout, part, root, work, boot, epoch)) for part in layout.partitions]
        return _assemble(layout, made, Path(target), epoch)
    except OSError as err:
        raise BuildError(f"the disk cannot be written: {err.strerror} ({err.filename or target})") from None
    except BaseException:
        Path(target).unlink(missing_ok=True)
        raise
    finally:
        trees.remove_tree(work)


def _file_system(layout, part, root, work, boot, epoch):
    target, tree = work / f"{part.line}.img", work / f"{part.line}"
    if part.source == "bootimg_efi":
        tree.mkdir()
        boot(tree, part, next(each.uuid for each in layout.partitions if each.mountpoint == "/"))
        used, _inodes = filesystems.content(tree)
        size = used + max(_BOOT_SPACE, part.size - used)
        # As wic does: FAT counts in clusters.
        filesystems.vfat(target, tree, -(-size // 32) * 32, label=part.label, identifier=part.fsuuid, epoch=epoch)
        return target
    if part.source == "empty" and part.sourceparams == "fill" and part.size:
        target.write_bytes(bytes(part.size * 1024))
        return target
    if part.source != "rootfs":
        raise BuildError(f"partition {part.mountpoint}: the fast lane has no source '{part.source}'")
    _extract(Path(root), tree, part)
    if part.fstype == "erofs":
        filesystems.erofs(target, tree, identifier=part.fsuuid, options=part.mkfs_extraopts, epoch=epoch)
        return target
    used, _inodes = filesystems.content(tree)
    size = int((used + max(part.extra_space, part.size - used)) * part.overhead)
    filesystems.ext4(target, tree, -(-size // 4) * 4, label=part.label, identifier=part.fsuuid,
                     options=part.mkfs_extraopts, epoch=epoch)
    return target


def _extract(root, tree, part):
    """Make the tree of one partition out of the root's, by hard links."""
    origin = root / part.directory.strip("/")
    if not origin.is_dir():
        raise BuildError(f"partition {part.mountpoint}: the image has no directory /{part.directory.strip('/')}")
    trees.link_tree(origin, tree)
    for path in part.exclude:
        full = tree / path.strip("/")
        if path.endswith("/"):
            for each in full.iterdir() if full.is_dir() else ():
                trees.remove_tree(each)
        else:
            trees.remove_tree(full)


def _assemble(layout, made, target, epoch):
    end, lines, table = (_GPT_SECTORS if layout.table == "gpt" else 1) * SECTOR, [], []
    for part, image in made:
        step = max(part.align, 1) * 1024
        start = -(-end // step) * step
        size = -(-image.stat().st_size // SECTOR) * SECTOR
        end = start + size
        lines.append(_line(layout, part, start // SECTOR, size // SECTOR))
        table.append({"name": part.part_name or part.label, "mountpoint": part.mountpoint, "fstype": part.fstype,
                      "type": part.part_type, "uuid": part.uuid, "start": start, "size": size})
    with open(target, "wb") as stream:
        stream.truncate(-(-(end + _GPT_SECTORS * SECTOR) // MEBIBYTE) * MEBIBYTE)
        for entry, (part, image) in zip(table, made, strict=True):
            if part.source == "empty":
                # Written, not left out: so it is on a map of the disk's blocks, and flashed.
                os.pwrite(stream.fileno(), image.read_bytes(), entry["start"])
            else:
                filesystems.copy_into(image, stream, entry["start"])
            image.unlink()
    head = [f"label: {'dos' if layout.table == 'msdos' else layout.table}", "unit: sectors", "grain: 512"]
    head += [f"label-id: {layout.disk_id}"] if layout.disk_id else []
    filesystems.run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", target, epoch=epoch,
                    text="\n".join([*head, "", *lines]) + "\n")
    return table


_MBR_TYPES = {"vfat": "c", "ext4": "83", "erofs": "83"}
_LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def _line(layout, part, start, size):
    """Return sfdisk's line for a partition (sfdisk(8), "Named-fields format")."""
    found = [f"start={start}", f"size={size}"]
    if layout.table == "gpt":
        found += [f"type={part.part_type or _LINUX}"]
        found += [f"uuid={part.uuid}"] if part.uuid else []
        found += [f'name="{part.part_name}"'] if part.part_name else []
        found += ["attrs=LegacyBIOSBootable"] if part.active else []
    else:
        found += [f"type={_MBR_TYPES[part.fstype]}", *(["bootable"] if part.active else [])]
    return ", ".join(found)


def systemd_boot(layout, files, loader, machine):
    """Return the function by which ``make`` fills an EFI system partition with systemd-boot.

    Arguments:
        layout: the Layout, for the loader's time and the kernel's arguments.
        files: {name on the partition: file} of the kernel and, where there is one, the initramfs ("initrd").
        loader: systemd-boot's program.
        machine: its name by the UEFI specification, "x64" or "aa64".
    """
    def fill(directory, _part, root):
        for path in ("EFI/BOOT", "loader/entries"):
            os.makedirs(directory / path)
        shutil.copyfile(loader, directory / f"EFI/BOOT/boot{machine}.efi")
        for name, path in files.items():
            shutil.copyfile(path, directory / name)
        (directory / "loader/loader.conf").write_text(f"timeout {layout.timeout}\n")
        kernel = next(name for name in files if name != "initrd")
        entry = ["title boot", f"linux /{kernel}", f"options LABEL=Boot root=PARTUUID={root} {layout.append}"]
        entry += ["initrd /initrd"] if "initrd" in files else []
        (directory / "loader/entries/boot.conf").write_text("\n".join(entry) + "\n")

    return fill
