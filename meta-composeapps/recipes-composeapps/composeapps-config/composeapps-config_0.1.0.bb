# SPDX-License-Identifier: MIT
SUMMARY = "Configuration of the composeapps agent"
DESCRIPTION = "A recipe of its own, so that a product replaces the configuration \
without touching the program."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit allarch composeapps-paths

S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d -m 0755 ${D}${sysconfdir}/composeapps ${D}${nonarch_libdir}/tmpfiles.d

    cat > ${D}${sysconfdir}/composeapps/config.toml << EOF
[pacman]
reset_apps_root = "${COMPOSEAPPS_STORE}"
compose_apps_root = "${COMPOSEAPPS_ROOT}"

[composeapps]
factory_file = "${COMPOSEAPPS_FACTORY_FILE}"
factory_store = "${COMPOSEAPPS_FACTORY_STORE}"
state_dir = "${COMPOSEAPPS_STATE_DIR}"
EOF

    # A factory reset may leave ${localstatedir} empty: the directories are made at each boot.
    # Bundles may carry secrets. dockerd reads and mounts what is below as root.
    cat > ${D}${nonarch_libdir}/tmpfiles.d/composeapps.conf << EOF
d ${COMPOSEAPPS_STORE} 0700 root root -
d ${COMPOSEAPPS_ROOT} 0700 root root -
d ${COMPOSEAPPS_STATE_DIR} 0750 root root -
EOF
    chmod 0644 ${D}${sysconfdir}/composeapps/config.toml ${D}${nonarch_libdir}/tmpfiles.d/composeapps.conf
}

FILES:${PN} += "${nonarch_libdir}/tmpfiles.d/composeapps.conf"
CONFFILES:${PN} = "${sysconfdir}/composeapps/config.toml"
