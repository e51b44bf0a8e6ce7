# SPDX-License-Identifier: MIT
SUMMARY = "Small console image that runs compose apps"
DESCRIPTION = "Boots, starts Docker and runs the compose apps of COMPOSEAPPS_PRELOAD, \
which the image carries, without any network."
SECTION = "images"
LICENSE = "MIT"

REQUIRED_DISTRO_FEATURES = "systemd virtualization"

inherit core-image features_check composeapps-image composeapps-disk

IMAGE_INSTALL = "\
    packagegroup-core-boot \
    kernel-modules \
"
IMAGE_LINGUAS = ""
