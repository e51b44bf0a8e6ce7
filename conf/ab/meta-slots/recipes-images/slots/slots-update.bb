# SPDX-License-Identifier: MIT
SUMMARY = "Update of the system for SWUpdate"
LICENSE = "MIT"

SRC_URI = "file://sw-description"

inherit swupdate

IMAGE_DEPENDS = "composeapps-image"
SWUPDATE_IMAGES = "composeapps-image"
SWUPDATE_IMAGES_FSTYPES[composeapps-image] = ".ext4.gz"
