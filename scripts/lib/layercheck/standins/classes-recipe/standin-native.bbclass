# SPDX-License-Identifier: MIT
#
# A recipe that puts programs of the build machine where the classes of openembedded-core look for
# those of a -native recipe.
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit native

INHIBIT_DEFAULT_DEPS = "1"
INHIBIT_SYSROOT_STRIP = "1"
S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
