# SPDX-License-Identifier: MIT
#
# Paths on the device, in one place for the recipes that write them into
# configuration files and for the images that put files there.

COMPOSEAPPS_STORE ?= "${localstatedir}/sota/reset-apps"
COMPOSEAPPS_ROOT ?= "${localstatedir}/sota/compose-apps"
COMPOSEAPPS_STATE_DIR ?= "${localstatedir}/lib/composeapps"
COMPOSEAPPS_FACTORY_FILE ?= "${datadir}/composeapps/factory.json"

# A directory of the root's top level, so that a disk can have it as a partition.
COMPOSEAPPS_FACTORY_DIR ?= "/factory"
COMPOSEAPPS_FACTORY_STORE ?= "${COMPOSEAPPS_FACTORY_DIR}/reset-apps"
