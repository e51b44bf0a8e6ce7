# SPDX-License-Identifier: MIT
IMAGE_INSTALL ?= "packagegroup-core-boot"

inherit image
