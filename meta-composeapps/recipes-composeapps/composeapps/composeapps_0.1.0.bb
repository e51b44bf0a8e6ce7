# SPDX-License-Identifier: MIT
SUMMARY = "Agent that installs, checks and runs restorable compose apps"
SUMMARY:${PN}-delivery = "What composeapps verifies signed delivery with"
DESCRIPTION = "The composeapps command and the service that starts the apps which \
the image carries. It needs no network for that."
SECTION = "admin"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

REQUIRED_DISTRO_FEATURES = "systemd"

inherit composeapps-paths features_check python3native systemd

# The sources are the package in this layer's lib/, file by file: BitBake hashes
# a directory whole, so byte code left there by a test would force a rebuild.
FILESEXTRAPATHS:prepend := "${THISDIR}/../../lib:"

def composeapps_sources(d):
    """Return the SRC_URI entries of the package's files that devices get."""
    import composeapps.sources
    return " ".join("file://" + path for path in composeapps.sources.device_files())

python () {
    # A file that comes or goes changes its directory, and then this recipe is parsed again.
    import composeapps.sources
    for directory in composeapps.sources.directories():
        bb.parse.mark_dependency(d, directory)
}

COMPOSEAPPS_UNITS = "\
    composeapps-checkin.service \
    composeapps-checkin.timer \
    composeapps-start.service \
    composeapps-update.service \
"
SRC_URI = "\
    ${@composeapps_sources(d)} \
    ${@' '.join('file://' + unit for unit in d.getVar('COMPOSEAPPS_UNITS').split())} \
"
S = "${UNPACKDIR}"
B = "${WORKDIR}/build"

# Python only: no toolchain is needed.
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"

do_compile[cleandirs] = "${B}"
do_compile() {
    cp -R ${S}/composeapps ${B}/composeapps
    find ${B}/composeapps -name __pycache__ -prune -exec rm -rf {} +
    # The device may be unable to write byte code (read-only root), and checking
    # the source's time at each start would be lost on files that never change.
    ${PYTHON} -m compileall -q -s ${B} -p ${PYTHON_SITEPACKAGES_DIR} \
        --invalidation-mode unchecked-hash ${B}/composeapps

    # -I: neither the environment nor the current directory decides what runs.
    cat > ${B}/composeapps.command << EOF
#!${bindir}/python3 -I
# SPDX-License-Identifier: MIT
from composeapps.cli.main import program

program()
EOF

    for shell in bash zsh fish; do
        PYTHONPATH=${B} ${PYTHON} -B -m composeapps completion $shell > ${B}/completion.$shell
    done

    for unit in ${COMPOSEAPPS_UNITS}; do
        sed -e 's|@bindir@|${bindir}|g' \
            -e 's|@localstatedir@|${localstatedir}|g' \
            -e 's|@COMPOSEAPPS_STORE@|${COMPOSEAPPS_STORE}|g' \
            -e 's|@COMPOSEAPPS_ROOT@|${COMPOSEAPPS_ROOT}|g' \
            -e 's|@COMPOSEAPPS_STATE_DIR@|${COMPOSEAPPS_STATE_DIR}|g' \
            -e 's|@COMPOSEAPPS_FACTORY_STORE@|${COMPOSEAPPS_FACTORY_STORE}|g' \
            ${S}/$unit > ${B}/$unit
    done
}

do_install() {
    install -d ${D}${PYTHON_SITEPACKAGES_DIR} ${D}${bindir} ${D}${systemd_system_unitdir}
    cp -R --no-dereference --preserve=mode,links ${B}/composeapps ${D}${PYTHON_SITEPACKAGES_DIR}/
    find ${D}${PYTHON_SITEPACKAGES_DIR} -type d -exec chmod 0755 {} +
    find ${D}${PYTHON_SITEPACKAGES_DIR} -type f -exec chmod 0644 {} +
    install -m 0755 ${B}/composeapps.command ${D}${bindir}/composeapps
    install -D -m 0644 ${B}/completion.bash ${D}${datadir}/bash-completion/completions/composeapps
    install -D -m 0644 ${B}/completion.zsh ${D}${datadir}/zsh/site-functions/_composeapps
    install -D -m 0644 ${B}/completion.fish ${D}${datadir}/fish/vendor_completions.d/composeapps.fish
    for unit in ${COMPOSEAPPS_UNITS}; do
        install -m 0644 ${B}/$unit ${D}${systemd_system_unitdir}/
    done
}

SYSTEMD_SERVICE:${PN} = "${COMPOSEAPPS_UNITS}"

# What verifies signatures, for images that take signed delivery; the others are spared it.
PACKAGES =+ "${PN}-delivery"
ALLOW_EMPTY:${PN}-delivery = "1"

FILES:${PN} += "\
    ${PYTHON_SITEPACKAGES_DIR}/composeapps \
    ${datadir}/bash-completion \
    ${datadir}/fish \
    ${datadir}/zsh \
"

RDEPENDS:${PN} = "\
    composeapps-config \
    docker-compose \
    docker-moby \
    python3-asyncio \
    python3-compression \
    python3-core \
    python3-crypt \
    python3-ctypes \
    python3-datetime \
    python3-email \
    python3-fcntl \
    python3-io \
    python3-json \
    python3-math \
    python3-netclient \
    python3-pyyaml \
    python3-threading \
    python3-tomllib \
"
RDEPENDS:${PN}-delivery = "\
    ${PN} \
    python3-cryptography \
    python3-securesystemslib \
    python3-tuf \
"

# A device that registers itself makes its request with it; one that is given its certificate needs none.
RRECOMMENDS:${PN}-delivery = "openssl-bin"
