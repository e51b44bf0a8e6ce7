# SPDX-License-Identifier: MIT
"""What is in the images of apps: packages with versions and licences, and known vulnerabilities in them."""
