# SPDX-License-Identifier: MIT
SUMMARY = "Packages in name only, for those that an image takes from other layers"
DESCRIPTION = "They let apt resolve the dependencies of the recipes under test. An image with them does not boot."
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit allarch python3-dir

PROVIDES += "python3"

STANDIN_PACKAGES ?= ""
# Empty files that somebody looks for: "package:path".
STANDIN_FILES ?= ""

PACKAGES = "${STANDIN_PACKAGES}"
S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

python () {
    for package in d.getVar("PACKAGES").split():
        d.setVar("ALLOW_EMPTY:" + package, "1")
        d.setVar("FILES:" + package, "")
    for entry in d.getVar("STANDIN_FILES").split():
        package, _, path = entry.partition(":")
        d.appendVar("FILES:" + package, " " + path)
}

do_install() {
    for entry in ${STANDIN_FILES}; do
        install -D -m 0755 /dev/null ${D}$(echo $entry | cut -d : -f 2)
    done
}
