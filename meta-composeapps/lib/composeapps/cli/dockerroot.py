# SPDX-License-Identifier: MIT
"""Where dockerd has its data."""

import json


def configured(path="/etc/docker/daemon.json"):
    """Return the data root that dockerd's own configuration names, or its default."""
    try:
        with open(path, "rb") as stream:
            value = json.load(stream).get("data-root")
    except (OSError, ValueError, AttributeError):
        value = None
    return value if isinstance(value, str) and value.startswith("/") else "/var/lib/docker"
