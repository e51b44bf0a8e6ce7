# SPDX-License-Identifier: MIT
"""How what belongs to an app is known in dockerd: the labels of its containers, networks and volumes."""

# docker compose's, of every container that it makes; the project's is on networks and volumes, too.
WORKING_DIR = "com.docker.compose.project.working_dir"
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
ONE_OFF = "com.docker.compose.oneoff"
NETWORK = "com.docker.compose.network"
# Ours: on containers, and on networks.
FINGERPRINT = "composeapps.fingerprint"
NETWORK_DEFINITION = "composeapps.definition"


def label(container, key):
    """Return a label of a container that dockerd described, "" when it has none."""
    return str((container["Config"].get("Labels") or {}).get(key) or "")


def number(container):
    """Return a container's number among those of its service; a later one has a higher number."""
    text = label(container, NUMBER)
    return int(text) if text.isdecimal() and len(text) < 10 else 0
