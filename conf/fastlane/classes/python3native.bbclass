# SPDX-License-Identifier: MIT
# A Python for the build that writes the byte code which the device's Python
# reads: the base's own, which the engine puts into FASTLANE_PYTHON.
inherit python3-dir

FASTLANE_PYTHON ??= "${@__import__('sys').executable}"
PYTHON = "${FASTLANE_PYTHON}"
export PYTHONNOUSERSITE = "1"
