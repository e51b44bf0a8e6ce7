# SPDX-License-Identifier: MIT
SUMMARY = "The build machine's Python"
DESCRIPTION = "Stands in for openembedded-core's python3-native. Its version is another than the \
target's, so the byte code that it writes is of no use on a device."

inherit standin-native

do_install() {
    install -d ${D}${bindir}/python3-native
    ln -s /usr/bin/python3 ${D}${bindir}/python3-native/python3
}
