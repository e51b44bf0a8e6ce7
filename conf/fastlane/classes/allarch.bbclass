# SPDX-License-Identifier: MIT
# The same output for every architecture; nothing is compiled.
PACKAGE_ARCH = "all"
INHIBIT_DEFAULT_DEPS = "1"
