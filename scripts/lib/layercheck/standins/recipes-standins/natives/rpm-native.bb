# SPDX-License-Identifier: MIT
SUMMARY = "The build machine's rpmdeps"
DESCRIPTION = "Stands in for openembedded-core's rpm-native: do_package asks rpmdeps what each file \
needs and provides, whatever format the packages have."

inherit standin-native

do_install() {
    install -d ${D}${libdir}/rpm
    ln -s /usr/lib/rpm/rpmdeps ${D}${libdir}/rpm/rpmdeps
}
