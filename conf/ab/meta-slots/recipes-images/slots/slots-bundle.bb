# SPDX-License-Identifier: MIT
SUMMARY = "Update of the system for RAUC"
LICENSE = "MIT"

inherit bundle

RAUC_BUNDLE_COMPATIBLE = "composeapps-slots"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs = "composeapps-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
