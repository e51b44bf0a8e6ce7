# SPDX-License-Identifier: MIT
#
# For an image recipe: carries the apps listed in COMPOSEAPPS_PRELOAD in the
# restorable store of the image, together with the agent that starts them.
#
#   inherit core-image composeapps-image
#   COMPOSEAPPS_PRELOAD = "shellhttpd web"

inherit composeapps-paths

COMPOSEAPPS_PRELOAD ?= ""

# KiB. Docker unpacks the preloaded images beside the store, and updates need room.
COMPOSEAPPS_DATA_SPACE ?= "2097152"
IMAGE_ROOTFS_EXTRA_SPACE:append = " + ${COMPOSEAPPS_DATA_SPACE}"

IMAGE_INSTALL:append = " packagegroup-composeapps"

do_rootfs[depends] += "${@' '.join('composeapp-%s:do_deploy' % app for app in d.getVar('COMPOSEAPPS_PRELOAD').split())}"

ROOTFS_POSTPROCESS_COMMAND += "composeapps_preload"

python composeapps_preload() {
    import composeapps.errors
    import composeapps.preload
    rootfs = d.getVar("IMAGE_ROOTFS")
    deployed = os.path.join(d.getVar("DEPLOY_DIR_IMAGE"), "composeapps")
    try:
        composeapps.preload.merge_store(
            sources=[os.path.join(deployed, app) for app in d.getVar("COMPOSEAPPS_PRELOAD").split()],
            root=rootfs + d.getVar("COMPOSEAPPS_STORE"),
            factory_file=rootfs + d.getVar("COMPOSEAPPS_FACTORY_FILE"),
        )
    except composeapps.errors.ComposeAppsError as err:
        bb.fatal("preloading apps into %s: %s" % (d.getVar("PN"), err))
}
