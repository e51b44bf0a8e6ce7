# SPDX-License-Identifier: MIT
"""scripts/factory: what devices speak with, on this machine: nginx with their certificates, before a registry."""
