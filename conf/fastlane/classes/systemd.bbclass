# SPDX-License-Identifier: MIT
# SYSTEMD_SERVICE:package names units of a package, SYSTEMD_AUTO_ENABLE what
# becomes of them; fastlane.services does that when the image is put together.
SYSTEMD_PACKAGES ?= "${PN}"
SYSTEMD_AUTO_ENABLE ??= "enable"
