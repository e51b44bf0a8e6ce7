# SPDX-License-Identifier: MIT
SUMMARY = "Configuration of the composeapps agent"
DESCRIPTION = "A recipe of its own, so that a product replaces the configuration \
without touching the program."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit allarch composeapps-paths

# What devices trust the factory's signatures by: see docs/delivery.md.
COMPOSEAPPS_TUF_ROOT ?= ""

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

# A root that changes, appears or goes makes another package.
do_install[file-checksums] += "${@' '.join(path + ':True' for path in d.getVar('COMPOSEAPPS_TUF_ROOT').split())}"
do_install[postfuncs] += "composeapps_trust"

python composeapps_trust() {
    import json
    import os
    import shutil
    place = os.path.join(d.getVar("D") + d.getVar("datadir"), "composeapps", "tuf")
    for path in d.getVar("COMPOSEAPPS_TUF_ROOT").split():
        if not os.path.isabs(path):
            bb.fatal("COMPOSEAPPS_TUF_ROOT: %s is no absolute path: begin it with ${LAYERDIR} or ${TOPDIR}" % path)
        try:
            with open(path, encoding="utf-8") as stream:
                signed = json.load(stream)["signed"]
            kind, version = signed["_type"], signed["version"]
            if kind.lower() != "root" or type(version) is not int or version < 1:
                raise ValueError("it is metadata of the kind %s" % kind)
        except OSError as err:
            bb.fatal("COMPOSEAPPS_TUF_ROOT: %s cannot be read: %s" % (path, err.strerror))
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            bb.fatal("COMPOSEAPPS_TUF_ROOT: %s is no root of signed metadata, as 1.root.json of a repository: %s" % (path, err))
        target = os.path.join(place, "%d.root.json" % version)
        if os.path.exists(target):
            bb.fatal("COMPOSEAPPS_TUF_ROOT names two roots of version %d: leave one out" % version)
        bb.utils.mkdirhier(place)
        shutil.copyfile(path, target)
        os.chmod(target, 0o644)
}

FILES:${PN} += "${nonarch_libdir}/tmpfiles.d/composeapps.conf ${datadir}/composeapps/tuf"
CONFFILES:${PN} = "${sysconfdir}/composeapps/config.toml"

python () {
    # Who trusts a factory has to be able to verify what it signs.
    if d.getVar("COMPOSEAPPS_TUF_ROOT").split():
        d.appendVar("RDEPENDS:" + d.getVar("PN"), " composeapps-delivery")
}
