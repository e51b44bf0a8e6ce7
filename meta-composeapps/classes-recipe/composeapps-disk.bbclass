# SPDX-License-Identifier: MIT
#
# For an image recipe that inherits composeapps-image: a disk with a partition each for booting,
# the root file system, the factory store (read-only) and the data, which grows to the size of the
# device's disk at the first boot and is made anew by a factory reset.
#
# The machine boots by EFI. Other machines keep the disk layout of their BSP layer, with everything
# in one root file system; so do OSTree deployments, which have a layout of their own.

inherit composeapps-paths

COMPOSEAPPS_DISK ?= "${@bb.utils.contains('DISTRO_FEATURES', 'sota', '0', bb.utils.contains('MACHINE_FEATURES', 'efi', '1', '0', d), d)}"

COMPOSEAPPS_WKS_FILE ?= "composeapps-disk.wks.in"
# KiB of the root partition beyond what is in it.
COMPOSEAPPS_ROOT_SPACE ?= "65536"
COMPOSEAPPS_KERNEL_ARGUMENTS ?= "rootwait console=tty0"

# For the wks file, which names directories relative to the root.
COMPOSEAPPS_FACTORY_PATH = "${@d.getVar('COMPOSEAPPS_FACTORY_DIR').strip('/')}"

OVERRIDES .= "${@':composeapps-disk' if d.getVar('COMPOSEAPPS_DISK') == '1' else ''}"

WKS_FILE:composeapps-disk = "${COMPOSEAPPS_WKS_FILE}"
COMPOSEAPPS_ROOT_EXTRA_SPACE:composeapps-disk = "0"
IMAGE_INSTALL:append:composeapps-disk = " composeapps-disk-config"
# The disk, the map by which bmaptool writes only its used blocks, and how to know that both came whole.
IMAGE_FSTYPES:append:composeapps-disk = " wic.zst wic.zst.sha256sum wic.bmap wic.bmap.sha256sum"

# A mount point must be there even when no app is preloaded.
ROOTFS_POSTPROCESS_COMMAND:append:composeapps-disk = " composeapps_mount_points"

composeapps_mount_points() {
    install -d -m 0755 ${IMAGE_ROOTFS}${COMPOSEAPPS_FACTORY_DIR}
}
