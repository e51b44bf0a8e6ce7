# SPDX-License-Identifier: MIT
SUMMARY = "Finds and prepares the partitions of a device with compose apps"
DESCRIPTION = "Links to the partitions of the disk that the root file system is on, and a service that \
lets the data partition take the rest of the disk, and makes it anew where it is missing."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "\
    file://65-composeapps-disk.rules \
    file://composeapps-data \
    file://composeapps-data.service \
    file://composeapps-root-disk \
"

inherit allarch features_check systemd

REQUIRED_DISTRO_FEATURES = "composeapps systemd"

S = "${UNPACKDIR}"

# All that it installs are files of its own.
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${nonarch_base_libdir}/udev/rules.d ${D}${libexecdir} ${D}${systemd_system_unitdir}
    for file in 65-composeapps-disk.rules composeapps-data composeapps-data.service composeapps-root-disk; do
        sed -e 's,@bindir@,${bindir},g' -e 's,@libexecdir@,${libexecdir},g' ${S}/$file > ${B}/$file
    done
    install -m 0644 ${B}/65-composeapps-disk.rules ${D}${nonarch_base_libdir}/udev/rules.d/
    install -m 0755 ${B}/composeapps-data ${B}/composeapps-root-disk ${D}${libexecdir}/
    install -m 0644 ${B}/composeapps-data.service ${D}${systemd_system_unitdir}/
}
B = "${WORKDIR}/build"
do_install[cleandirs] += "${B}"

SYSTEMD_SERVICE:${PN} = "composeapps-data.service"

FILES:${PN} += "${nonarch_base_libdir}/udev"

# What composeapps.disk runs.
RDEPENDS:${PN} = "\
    composeapps \
    e2fsprogs-e2fsck \
    e2fsprogs-mke2fs \
    e2fsprogs-tune2fs \
    util-linux-blkid \
    util-linux-partx \
    util-linux-sfdisk \
"
