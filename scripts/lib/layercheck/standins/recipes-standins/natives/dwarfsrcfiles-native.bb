# SPDX-License-Identifier: MIT
SUMMARY = "Fails when it is asked for the sources of a binary"
DESCRIPTION = "Stands in for openembedded-core's dwarfsrcfiles-native, which do_package runs on ELF files. \
Nothing here compiles any, so being run is a finding."

inherit standin-native

do_install() {
    install -d ${D}${bindir}
    cat > ${D}${bindir}/dwarfsrcfiles <<'END'
#!/bin/sh
echo "dwarfsrcfiles: a package has a binary, which check-layer --execute cannot handle: $*" >&2
exit 2
END
    chmod 0755 ${D}${bindir}/dwarfsrcfiles
}
