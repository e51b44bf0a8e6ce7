# SPDX-License-Identifier: MIT
SUMMARY = "The build machine's pseudo"
DESCRIPTION = "Stands in for openembedded-core's pseudo-native. bitbake.conf says where the program and \
the library are, so both are copied there."

inherit standin-native

PROVIDES += "virtual/fakeroot-native"

do_install() {
    install -d ${D}${bindir} ${D}${prefix}/lib/pseudo/lib64
    install -m 0755 /usr/bin/pseudo /usr/bin/pseudolog ${D}${bindir}
    install -m 0755 $(find /usr/lib -path '*/pseudo/*' -name libpseudo.so | head -n 1) ${D}${prefix}/lib/pseudo/lib64/
}
