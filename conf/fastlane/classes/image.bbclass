# SPDX-License-Identifier: MIT
# An image recipe in the fast lane: Debian's base, the packages of IMAGE_INSTALL
# over it, the recipe's own ROOTFS_POSTPROCESS_COMMAND, then one disk.

LICENSE ?= "MIT"
PACKAGES = ""
SRC_URI = ""
PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"

IMAGE_INSTALL ?= ""
IMAGE_LINGUAS ??= ""
PACKAGE_INSTALL ?= "${IMAGE_INSTALL}"
IMAGE_BASENAME ?= "${PN}"
IMGDEPLOYDIR = "${WORKDIR}/deploy-${PN}-image-complete"
IMAGE_NAME ?= "${IMAGE_BASENAME}-${MACHINE}"
FASTLANE_DEPLOY ?= "${TOPDIR}/deploy"

ROOTFS_PREPROCESS_COMMAND ??= ""
ROOTFS_POSTPROCESS_COMMAND ??= ""
IMAGE_PREPROCESS_COMMAND ??= ""
IMAGE_POSTPROCESS_COMMAND ??= ""

FASTLANE_IMAGE_FEATURES = "allow-empty-password allow-root-login empty-root-password serial-autologin-root"

deltask do_fetch
deltask do_unpack
deltask do_patch
deltask do_configure
deltask do_compile
deltask do_install

python () {
    unknown = set((d.getVar("IMAGE_FEATURES") or "").split()) - set(d.getVar("FASTLANE_IMAGE_FEATURES").split())
    if unknown:
        raise bb.parse.SkipRecipe("%s: the fast lane has no image feature '%s' (it has %s): build with bitbake, or leave it out" % (
            d.getVar("PN"), sorted(unknown)[0], ", ".join(d.getVar("FASTLANE_IMAGE_FEATURES").split())))
    # What the commands do is part of the image, not only their names.
    for variable in ("ROOTFS_PREPROCESS_COMMAND", "ROOTFS_POSTPROCESS_COMMAND", "IMAGE_PREPROCESS_COMMAND", "IMAGE_POSTPROCESS_COMMAND"):
        d.setVarFlag(variable, "vardeps", (d.getVar(variable) or "").replace(";", " "))
}

def fastlane_run_commands(variable, d):
    """Run the functions that a variable lists, in order."""
    for function in (d.getVar(variable) or "").replace(";", " ").split():
        bb.build.exec_func(function, d)

ROOTFS_POSTPROCESS_COMMAND:prepend = "fastlane_login "

python fastlane_login() {
    import fastlane.rootfs
    fastlane.rootfs.configure_login(
        d.getVar("IMAGE_ROOTFS"), (d.getVar("IMAGE_FEATURES") or "").split(), d.getVar("FASTLANE_CONSOLE"))
}

addtask rootfs
do_rootfs[dirs] = "${TOPDIR}"
do_rootfs[vardeps] += "PACKAGE_INSTALL IMAGE_FEATURES hostname"
python do_rootfs() {
    import fastlane.rootfs
    plan = d.getVar("FASTLANE_PLAN", False)
    fastlane.rootfs.lay_out(plan, d.getVar("IMAGE_ROOTFS"), d.getVar("hostname"))
    fastlane_run_commands("ROOTFS_PREPROCESS_COMMAND", d)
    fastlane.rootfs.install_packages(plan, d.getVar("IMAGE_ROOTFS"))
    fastlane_run_commands("ROOTFS_POSTPROCESS_COMMAND", d)
    fastlane.rootfs.finish(plan, d.getVar("IMAGE_ROOTFS"))
}

# A disk with partitions, for an image that has wic among its types; else one file system.
WKS_FILE ??= ""
FASTLANE_WKS = "${@bb.utils.which(':'.join(os.path.join(path, 'files', 'wic') for path in d.getVar('BBPATH').split(':')), d.getVar('WKS_FILE')) if any(each.startswith('wic') for each in (d.getVar('IMAGE_FSTYPES') or '').split()) else ''}"
FASTLANE_WKS[vardepvalue] = "${WKS_FILE} ${IMAGE_FSTYPES}"

python () {
    wks = d.getVar("FASTLANE_WKS")
    if wks:
        with open(wks, encoding="utf-8") as stream:
            d.setVar("_WKS_TEMPLATE", stream.read())
}

addtask image after do_rootfs
do_image[dirs] = "${TOPDIR}"
do_image[cleandirs] = "${IMGDEPLOYDIR}"
do_image[vardeps] += "IMAGE_ROOTFS_EXTRA_SPACE FASTLANE_MOUNT_OPTIONS _WKS_TEMPLATE"
python do_image() {
    import fastlane.disk
    fastlane_run_commands("IMAGE_PREPROCESS_COMMAND", d)
    d.setVar("BB_UNIHASH", d.getVar("FASTLANE_SIGNATURE"))
    fastlane.disk.make(d, d.getVar("FASTLANE_PLAN", False))
}

addtask image_complete after do_image before do_build
do_image_complete[dirs] = "${TOPDIR}"
do_image_complete[vardeps] += "FASTLANE_CMDLINE IMAGE_NAME"
python do_image_complete() {
    import fastlane.disk
    fastlane_run_commands("IMAGE_POSTPROCESS_COMMAND", d)
    fastlane.disk.publish(d, d.getVar("FASTLANE_PLAN", False))
}
