# SPDX-License-Identifier: MIT
"""Digests, references, platforms, manifests: what a registry or a store hands us is parsed and validated here."""
