# SPDX-License-Identifier: MIT
# A recipe that only deploys: it has no packages for a root file system.
PACKAGES = ""
