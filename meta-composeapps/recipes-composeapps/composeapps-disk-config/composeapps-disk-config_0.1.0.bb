# SPDX-License-Identifier: MIT
SUMMARY = "Prepares, provisions and resets the partitions of a device with apps"
DESCRIPTION = "Links to the partitions of the disk that the root file system is on, and services that let the \
data partition take the rest of the disk, make it anew where it is missing, carry out a factory reset, have the \
machine-id and ssh host keys last, and take over what the device was given when it was made."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "\
    file://65-composeapps-disk.rules \
    file://composeapps-data \
    file://composeapps-data.service \
    file://composeapps-host-keys.conf \
    file://composeapps-machine-id \
    file://composeapps-machine-id.service \
    file://composeapps-provision \
    file://composeapps-provision.service \
    file://composeapps-reset-marker \
    file://composeapps-reset-marker.service \
    file://composeapps-reset-now.service \
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
    for file in ${@' '.join(os.path.basename(entry[7:]) for entry in d.getVar('SRC_URI').split())}; do
        sed -e 's,@bindir@,${bindir},g' -e 's,@libexecdir@,${libexecdir},g' -e 's,@localstatedir@,${localstatedir},g' ${S}/$file > ${B}/$file
    done
    install -m 0644 ${B}/65-composeapps-disk.rules ${D}${nonarch_base_libdir}/udev/rules.d/
    for file in data machine-id provision reset-marker root-disk; do
        install -m 0755 ${B}/composeapps-$file ${D}${libexecdir}/
    done
    install -m 0644 ${B}/*.service ${D}${systemd_system_unitdir}/
    install -D -m 0644 ${B}/composeapps-host-keys.conf ${D}${nonarch_libdir}/tmpfiles.d/composeapps-host-keys.conf
}
B = "${WORKDIR}/build"
do_install[cleandirs] += "${B}"

SYSTEMD_SERVICE:${PN} = "\
    composeapps-data.service \
    composeapps-machine-id.service \
    composeapps-provision.service \
    composeapps-reset-marker.service \
    composeapps-reset-now.service \
"

FILES:${PN} += "${nonarch_base_libdir}/udev ${nonarch_libdir}/tmpfiles.d"

# What composeapps.disk runs.
RDEPENDS:${PN} = "\
    composeapps \
    e2fsprogs-e2fsck \
    e2fsprogs-mke2fs \
    e2fsprogs-tune2fs \
    util-linux-blkdiscard \
    util-linux-blkid \
    util-linux-partx \
    util-linux-sfdisk \
"

# Keys that the device makes by itself; without it the device takes one that it is given.
RRECOMMENDS:${PN} = "openssl-bin"
