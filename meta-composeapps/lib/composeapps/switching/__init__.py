# SPDX-License-Identifier: MIT
"""Bringing a running app from one version to another, touching only the services that differ.

``changes`` finds out what differs, ``locks`` who forbids it now, ``switch`` does it, ``handover``
starts a new container beside the old one.
"""
