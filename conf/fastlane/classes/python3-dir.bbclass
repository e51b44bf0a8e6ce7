# SPDX-License-Identifier: MIT
# Debian's Python looks for packages here, whatever its minor version.
PYTHON_DIR = "python3"
PYTHON_PN = "python3"
PYTHON_SITEPACKAGES_DIR = "${nonarch_libdir}/python3/dist-packages"
