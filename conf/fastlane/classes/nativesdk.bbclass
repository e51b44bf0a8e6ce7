# SPDX-License-Identifier: MIT
# The fast lane builds for the device only; a variant for the build host stays unused.
