# SPDX-License-Identifier: MIT
SUMMARY = "Finds, grows and resets the partitions of a device with compose apps"
DESCRIPTION = "Links to the partitions of the disk that the root file system is on. Tells systemd-repart that \
the data partition takes the rest of the disk, and that a factory reset makes it anew."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "\
    file://50-data.conf \
    file://65-composeapps-disk.rules \
    file://composeapps-root-disk \
"

inherit allarch features_check

# With it systemd is built with systemd-repart.
REQUIRED_DISTRO_FEATURES = "composeapps systemd"

S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${nonarch_libdir}/repart.d
    install -m 0644 ${S}/50-data.conf ${D}${nonarch_libdir}/repart.d/50-data.conf
    install -d ${D}${nonarch_base_libdir}/udev/rules.d ${D}${libexecdir}
    sed -e 's,@libexecdir@,${libexecdir},g' ${S}/65-composeapps-disk.rules \
        > ${D}${nonarch_base_libdir}/udev/rules.d/65-composeapps-disk.rules
    install -m 0755 ${S}/composeapps-root-disk ${D}${libexecdir}/composeapps-root-disk
}

FILES:${PN} += "${nonarch_libdir}/repart.d ${nonarch_base_libdir}/udev"
