# SPDX-License-Identifier: MIT
"""Build a bootable image from the layer's recipes in minutes, with BitBake's own library.

Recipes are parsed, fetched and run by BitBake's code in this process; conf/fastlane holds the
configuration and the few classes that stand in for openembedded-core. What recipes would
compile from source comes from Debian instead: a base root made by mmdebstrap.
"""
