# SPDX-License-Identifier: MIT
# A recipe without files, whose packages only name others.
PACKAGES = "${PN}"
PACKAGE_ARCH ?= "all"
LICENSE ?= "MIT"
SRC_URI = ""

deltask do_fetch
deltask do_unpack
deltask do_patch
deltask do_configure
deltask do_compile
deltask do_install
