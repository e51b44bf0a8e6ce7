# SPDX-License-Identifier: MIT
#
# For an image recipe that inherits composeapps-image: a disk with a partition each for booting,
# the root file system, the factory store (read-only) and the data, which grows to the size of the
# device's disk at the first boot and is made anew by a factory reset.
#
# By itself for machines that boot by EFI. Other machines keep the disk layout of their BSP layer, with everything in
# one root file system, but for COMPOSEAPPS_DISK = "1": then the boot partition has what the BSP boots from. OSTree
# deployments have a layout of their own.

inherit composeapps-paths

COMPOSEAPPS_DISK ?= "${@bb.utils.contains('DISTRO_FEATURES', 'sota', '0', bb.utils.contains('MACHINE_FEATURES', 'efi', '1', '0', d), d)}"

COMPOSEAPPS_WKS_FILE ?= "composeapps-${@bb.utils.contains('MACHINE_FEATURES', 'efi', 'disk', 'bsp', d)}.wks.in"
# "0" for a wks file that leaves the factory store in the root file system.
COMPOSEAPPS_FACTORY_PARTITION ?= "1"
# KiB of the root partition beyond what is in it.
COMPOSEAPPS_ROOT_SPACE ?= "65536"
# "gpt": after a power cut in the middle of writing the partition table its copy counts.
COMPOSEAPPS_KERNEL_ARGUMENTS ?= "rootwait gpt console=tty0"

# For the wks file, which names directories relative to the root.
COMPOSEAPPS_FACTORY_PATH = "${@d.getVar('COMPOSEAPPS_FACTORY_DIR').strip('/')}"
COMPOSEAPPS_FACTORY_INODES = "${@composeapps_inodes(d)}"

# Of what all identifiers of a disk and its partitions are made: the same build gives the same, another one others.
# By default the signature of the task that writes the wks file, which the image's content is part of.
COMPOSEAPPS_DISK_ID ?= "${@d.getVar('BB_UNIHASH') or d.getVar('BB_TASKHASH') or ''}"
COMPOSEAPPS_DISK_ID[vardepsexclude] = "BB_UNIHASH BB_TASKHASH"
COMPOSEAPPS_DISK_UUID = "${@composeapps_uuid(d, 'disk')}"
COMPOSEAPPS_BOOT_UUID = "${@composeapps_uuid(d, 'boot')}"
COMPOSEAPPS_ROOT_UUID = "${@composeapps_uuid(d, 'root')}"
COMPOSEAPPS_FACTORY_UUID = "${@composeapps_uuid(d, 'factory')}"
COMPOSEAPPS_PROVISION_UUID = "${@composeapps_uuid(d, 'provision')}"
COMPOSEAPPS_DATA_UUID = "${@composeapps_uuid(d, 'data')}"
# FAT has 32 bits.
COMPOSEAPPS_BOOT_FSUUID = "0x${@composeapps_uuid(d, 'boot file system')[:8].upper()}"
COMPOSEAPPS_ROOT_FSUUID = "${@composeapps_uuid(d, 'root file system')}"
COMPOSEAPPS_FACTORY_FSUUID = "${@composeapps_uuid(d, 'factory file system')}"
COMPOSEAPPS_DATA_FSUUID = "${@composeapps_uuid(d, 'data file system')}"

def composeapps_uuid(d, what):
    """Return the identifier of a part of the disk."""
    import uuid
    return str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(
        (d.getVar("PN"), d.getVar("MACHINE"), d.getVar("COMPOSEAPPS_DISK_ID"), what))))

def composeapps_inodes(d):
    """Return how many inodes the factory partition needs.

    ext4 keeps eleven for itself, and mke2fs rounds down to eights in each group of 128 MiB.
    """
    top, count, size = (d.getVar("IMAGE_ROOTFS") or "") + d.getVar("COMPOSEAPPS_FACTORY_DIR"), 16, 0
    for directory, _names, files in os.walk(top):
        count += 1 + len(files)
        size += sum(os.lstat(os.path.join(directory, name)).st_size + 4096 for name in files)
    return str(count + 8 * (2 + (size >> 27)))

OVERRIDES .= "${@':composeapps-disk' if d.getVar('COMPOSEAPPS_DISK') == '1' else ''}"

WKS_FILE:composeapps-disk = "${COMPOSEAPPS_WKS_FILE}"
COMPOSEAPPS_ROOT_EXTRA_SPACE:composeapps-disk = "0"
IMAGE_INSTALL:append:composeapps-disk = " composeapps-disk-config"
# The disk, the map by which bmaptool writes only its used blocks, and how to know that both came whole.
IMAGE_FSTYPES:append:composeapps-disk = " wic.zst wic.zst.sha256sum wic.bmap wic.bmap.sha256sum"

ROOTFS_POSTPROCESS_COMMAND:append:composeapps-disk = " composeapps_mounts composeapps_skeleton"

# The links are made by composeapps-disk-config, and only for the disk that the root is on: the same image on another
# disk of the machine has the same labels and identifiers. A broken factory partition must not keep the device from
# booting. Without delayed allocation a file's content reaches the disk before its name does. The boot partition is
# mounted when somebody looks at it.
composeapps_mounts() {
    # A mount point must be there even when no app is preloaded.
    install -d -m 0755 ${IMAGE_ROOTFS}${COMPOSEAPPS_FACTORY_DIR} ${IMAGE_ROOTFS}/boot
    fstab=${IMAGE_ROOTFS}${sysconfdir}/fstab
    grep -v '^/dev/disk/composeapps/' $fstab > $fstab.new || true
    echo "/dev/disk/composeapps/data ${localstatedir} ext4 defaults,nodelalloc,x-systemd.growfs 0 2" >> $fstab.new
    if [ "${COMPOSEAPPS_FACTORY_PARTITION}" = 1 ]; then
        echo "/dev/disk/composeapps/factory ${COMPOSEAPPS_FACTORY_DIR} ext4 ro,noload,nofail 0 0" >> $fstab.new
    fi
    echo "/dev/disk/composeapps/boot /boot vfat ro,umask=0077,nofail,noauto,x-systemd.automount,x-systemd.idle-timeout=30 0 0" >> $fstab.new
    mv $fstab.new $fstab
}

# What a data partition that is made anew begins with: the image's /var without the apps, which come from the factory
# store, and without what is made at run time.
composeapps_skeleton() {
    skeleton=${IMAGE_ROOTFS}${datadir}/composeapps/var
    rm -rf $skeleton
    install -d ${IMAGE_ROOTFS}${datadir}/composeapps
    cp -a ${IMAGE_ROOTFS}${localstatedir} $skeleton
    for path in ${COMPOSEAPPS_STORE} ${COMPOSEAPPS_ROOT} ${localstatedir}/cache ${localstatedir}/lib/apt ${localstatedir}/lib/docker; do
        case $path in
            ${localstatedir}/*) find "$skeleton${path#${localstatedir}}" -mindepth 1 -delete 2> /dev/null || true ;;
        esac
    done
}
