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

addtask image after do_rootfs
do_image[dirs] = "${TOPDIR}"
do_image[cleandirs] = "${IMGDEPLOYDIR}"
do_image[vardeps] += "IMAGE_ROOTFS_EXTRA_SPACE FASTLANE_MOUNT_OPTIONS"
python do_image() {
    import fastlane.disk
    fastlane_run_commands("IMAGE_PREPROCESS_COMMAND", d)
    extra = sum(int(part) for part in d.getVar("IMAGE_ROOTFS_EXTRA_SPACE").split("+") if part.strip())
    fastlane.disk.make(
        d.getVar("IMAGE_ROOTFS"), os.path.join(d.getVar("IMGDEPLOYDIR"), "disk.ext4"), extra * 1024,
        d.getVar("FASTLANE_MOUNT_OPTIONS") or "")
}

addtask image_complete after do_image before do_build
do_image_complete[dirs] = "${TOPDIR}"
do_image_complete[vardeps] += "FASTLANE_CMDLINE IMAGE_NAME"
python do_image_complete() {
    import fastlane.disk
    fastlane_run_commands("IMAGE_POSTPROCESS_COMMAND", d)
    fastlane.disk.publish(
        d.getVar("FASTLANE_PLAN", False),
        os.path.join(d.getVar("IMGDEPLOYDIR"), "disk.ext4"),
        d.getVar("FASTLANE_DEPLOY"), d.getVar("IMAGE_NAME"), d.getVar("MACHINE"), d.getVar("FASTLANE_CMDLINE"))
}
