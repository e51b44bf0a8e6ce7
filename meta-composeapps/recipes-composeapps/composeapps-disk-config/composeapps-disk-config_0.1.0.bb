# SPDX-License-Identifier: MIT
SUMMARY = "Grows and resets the data partition of a device with compose apps"
DESCRIPTION = "Tells systemd-repart that the data partition takes the rest of the disk, \
and that a factory reset makes it anew."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://50-data.conf"

inherit allarch features_check

# With it systemd is built with systemd-repart.
REQUIRED_DISTRO_FEATURES = "composeapps systemd"

S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${nonarch_libdir}/repart.d
    install -m 0644 ${S}/50-data.conf ${D}${nonarch_libdir}/repart.d/50-data.conf
}

FILES:${PN} += "${nonarch_libdir}/repart.d"
