# SPDX-License-Identifier: MIT
# Wheels are built with openembedded-core's native tools, which the fast lane
# lacks: an image takes such a package from Debian (conf/debian.conf), or from bitbake.
python () {
    raise bb.parse.SkipRecipe("%s: the fast lane builds no Python packages from PyPI: name Debian's package in FASTLANE_DEBIAN[%s]" % (
        d.getVar("PN"), d.getVar("PN")))
}
