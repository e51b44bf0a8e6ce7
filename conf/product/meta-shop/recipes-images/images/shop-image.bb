# SPDX-License-Identifier: MIT
SUMMARY = "Image of a product that carries the app shop"
LICENSE = "MIT"

# composeapps-image brings the agent and the apps. composeapps-disk brings the partitioned disk: leave it out to keep
# the disk layout of the BSP layer.
inherit core-image composeapps-image composeapps-disk

IMAGE_INSTALL = "\
    packagegroup-core-boot \
    kernel-modules \
"

COMPOSEAPPS_PRELOAD = "shop"
