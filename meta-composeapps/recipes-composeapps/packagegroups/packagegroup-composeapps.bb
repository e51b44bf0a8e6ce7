# SPDX-License-Identifier: MIT
SUMMARY = "Everything that a device needs to run compose apps"
LICENSE = "MIT"

inherit packagegroup

RDEPENDS:${PN} = "\
    composeapps \
    composeapps-config \
    composeapps-docker-config \
"
