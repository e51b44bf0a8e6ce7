# SPDX-License-Identifier: MIT
SUMMARY = "Everything that a device needs to run compose apps"
DESCRIPTION = "The agent with its configuration, and Docker set up so that apps are installed \
into a store that can be checked."
SECTION = "admin"
LICENSE = "MIT"

inherit packagegroup

RDEPENDS:${PN} = "\
    composeapps \
    composeapps-config \
    composeapps-docker-config \
"
