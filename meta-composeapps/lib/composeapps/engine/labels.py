# SPDX-License-Identifier: MIT
"""How what belongs to an app is known in dockerd: the labels of its containers, networks and volumes.

docker compose sets its own; the name of an app's project, which is part of them, is worked out here
as compose does, so that it can be known without running it.
"""

import re

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
    return int(text) if text.isdecimal() else 0


def project_name(app_name, given=None):
    """Return the name of an app's compose project, "" where only compose can tell.

    Arguments:
        app_name: the app's name.
        given: ``name`` of its compose file, None when it has none.

    Without a given one it is compose's own choice, the directory's name, but for apps whose name has
    several parts: the last one of these may be another app's name. No app's name has three underscores
    in a row.
    """
    if given:
        return given if isinstance(given, str) and "$" not in given else ""
    return re.sub(r"[^a-z0-9_-]", "", app_name.lower().replace("/", "___")).lstrip("_-")
