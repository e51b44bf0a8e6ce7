# SPDX-License-Identifier: MIT
SUMMARY = "Agent that installs, checks and runs restorable compose apps"
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
COMPOSEAPPS_SOURCES = "\
    composeapps/__init__.py \
    composeapps/app.py \
    composeapps/appdir.py \
    composeapps/bbfetch.py \
    composeapps/bundle.py \
    composeapps/callback.py \
    composeapps/cli/__init__.py \
    composeapps/cli/check.py \
    composeapps/cli/convert.py \
    composeapps/cli/fsck.py \
    composeapps/cli/housekeeping.py \
    composeapps/cli/main.py \
    composeapps/cli/output.py \
    composeapps/cli/publish.py \
    composeapps/cli/pull.py \
    composeapps/cli/run_commands.py \
    composeapps/cli/status.py \
    composeapps/cli/store_commands.py \
    composeapps/cli/update_commands.py \
    composeapps/cli/version.py \
    composeapps/compose.py \
    composeapps/config.py \
    composeapps/credentials.py \
    composeapps/dockerapp.py \
    composeapps/dockerstore/__init__.py \
    composeapps/dockerstore/actions.py \
    composeapps/dockerstore/beneath.py \
    composeapps/dockerstore/blobs.py \
    composeapps/dockerstore/blobtar.py \
    composeapps/dockerstore/bolt.py \
    composeapps/dockerstore/chain.py \
    composeapps/dockerstore/closure.py \
    composeapps/dockerstore/confine.py \
    composeapps/dockerstore/containers.py \
    composeapps/dockerstore/content.py \
    composeapps/dockerstore/context.py \
    composeapps/dockerstore/crc64.py \
    composeapps/dockerstore/databases.py \
    composeapps/dockerstore/fsck.py \
    composeapps/dockerstore/heal.py \
    composeapps/dockerstore/images.py \
    composeapps/dockerstore/layercheck.py \
    composeapps/dockerstore/layers.py \
    composeapps/dockerstore/layout.py \
    composeapps/dockerstore/leaks.py \
    composeapps/dockerstore/ledger.py \
    composeapps/dockerstore/liveness.py \
    composeapps/dockerstore/overlay.py \
    composeapps/dockerstore/placer.py \
    composeapps/dockerstore/report.py \
    composeapps/dockerstore/tarheader.py \
    composeapps/dockerstore/tarsplit.py \
    composeapps/durable.py \
    composeapps/engine.py \
    composeapps/errors.py \
    composeapps/factoryset.py \
    composeapps/fetching.py \
    composeapps/history.py \
    composeapps/ignorefile.py \
    composeapps/install.py \
    composeapps/inventory.py \
    composeapps/labels.py \
    composeapps/layersmeta.py \
    composeapps/loading.py \
    composeapps/lock.py \
    composeapps/login.py \
    composeapps/oci.py \
    composeapps/partial.py \
    composeapps/patience.py \
    composeapps/preload.py \
    composeapps/progress.py \
    composeapps/project.py \
    composeapps/prune.py \
    composeapps/publish.py \
    composeapps/pull.py \
    composeapps/ratelimit.py \
    composeapps/reference.py \
    composeapps/registry.py \
    composeapps/registryconf.py \
    composeapps/removal.py \
    composeapps/restore.py \
    composeapps/runtime.py \
    composeapps/sizes.py \
    composeapps/space.py \
    composeapps/staleimages.py \
    composeapps/state.py \
    composeapps/status.py \
    composeapps/store.py \
    composeapps/switching/__init__.py \
    composeapps/switching/changes.py \
    composeapps/switching/definition.py \
    composeapps/switching/handover.py \
    composeapps/switching/locks.py \
    composeapps/switching/switch.py \
    composeapps/switching/trees.py \
    composeapps/teardown.py \
    composeapps/transport.py \
    composeapps/unixhttp.py \
    composeapps/update/__init__.py \
    composeapps/update/health.py \
    composeapps/update/journal.py \
    composeapps/update/mending.py \
    composeapps/update/parts.py \
    composeapps/update/plan.py \
    composeapps/update/process.py \
    composeapps/update/rejection.py \
    composeapps/update/removal.py \
    composeapps/update/telling.py \
"
COMPOSEAPPS_UNITS = "composeapps-start.service composeapps-update.service"
SRC_URI = "\
    ${@' '.join('file://' + source for source in d.getVar('COMPOSEAPPS_SOURCES').split())} \
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
from composeapps.cli.main import main

raise SystemExit(main())
EOF

    for unit in ${COMPOSEAPPS_UNITS}; do
        sed -e 's|@bindir@|${bindir}|g' \
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
    for unit in ${COMPOSEAPPS_UNITS}; do
        install -m 0644 ${B}/$unit ${D}${systemd_system_unitdir}/
    done
}

SYSTEMD_SERVICE:${PN} = "${COMPOSEAPPS_UNITS}"

FILES:${PN} += "${PYTHON_SITEPACKAGES_DIR}/composeapps"

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
