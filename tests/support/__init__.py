# SPDX-License-Identifier: MIT
"""What several tests share: registries with authentication, small synthetic images and apps."""
