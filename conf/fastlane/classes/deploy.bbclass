# SPDX-License-Identifier: MIT
# do_deploy fills DEPLOYDIR; what is there becomes part of DEPLOY_DIR_IMAGE, as
# openembedded-core's shared state does it.
DEPLOYDIR = "${WORKDIR}/deploy-${PN}"
do_deploy[dirs] = "${B}"
do_deploy[cleandirs] = "${DEPLOYDIR}"
do_deploy[postfuncs] += "fastlane_publish_deploy"

python fastlane_publish_deploy() {
    import fastlane.trees
    fastlane.trees.publish_deploy(
        d.getVar("DEPLOYDIR"), d.getVar("DEPLOY_DIR_IMAGE"), d.expand("${TMPDIR}/deployed/${MACHINE}-${PN}"))
}
