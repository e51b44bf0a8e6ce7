# SPDX-License-Identifier: MIT
"""Writing an image to a device's disk from a workstation or a fixture."""
