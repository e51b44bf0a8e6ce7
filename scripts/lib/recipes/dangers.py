# SPDX-License-Identifier: MIT
"""What in an app reaches beyond its containers, so that whoever takes it into an image sees it.

Of the compose specification's keys these are those that give a container the host's powers, name spaces, devices or
files. A device runs what is listed here all the same: to decide is the reader's.
"""

from composeapps.app import compose

# Key of a service -> the value by which it shares what is the host's.
_HOSTS = {"network_mode": "network", "pid": "processes", "ipc": "shared memory", "uts": "name", "userns_mode": "users",
          "cgroup": "control groups"}
_UNCONFINED = ("unconfined", "disable")


def find(data, what):
    """Return sentences on what in a pinned compose file (bytes) is dangerous, those of a service beside each other.

    Arguments:
        data: the file.
        what: how errors name it.

    Raises CorruptError for what is no compose file.
    """
    found = []
    for name, service in sorted(compose.pinned(data, what)["services"].items()):
        found += [f"service '{name}' {text}" for text in _of_service(service)]
    return found


def _of_service(service):
    if _true(service.get("privileged")):
        yield "is privileged: it can do all that root of the device can"
    for key, meaning in _HOSTS.items():
        if service.get(key) == "host":
            yield f"has the host's {meaning} ({key}: host)"
    for mount in _list(service.get("volumes")):
        source, target, kind = _mount(mount)
        if kind == "bind" and source.startswith("/"):
            more = ", with which it controls dockerd" if source.rstrip("/").endswith(("docker.sock", "/run")) else ""
            yield f"has {source} of the host at {target}{more}"
    if added := sorted(map(str, _list(service.get("cap_add")))):
        yield f"has more capabilities: {', '.join(added)}"
    if devices := sorted(_device(each) for each in _list(service.get("devices"))):
        yield f"has devices of the host: {', '.join(devices)}"
    for option in map(str, _list(service.get("security_opt"))):
        if option.replace("=", ":").rpartition(":")[2] in _UNCONFINED:
            yield f"is less confined ({option})"


def _true(value):
    return value is True or str(value).lower() in ("true", "yes", "on", "1")


def _list(value):
    return value if isinstance(value, list) else []


def _mount(value):
    """Return (source, target, type) of a mount in the short or the long form."""
    if isinstance(value, dict):
        return str(value.get("source", "")), str(value.get("target", "")), str(value.get("type", "volume"))
    source, _colon, rest = str(value).partition(":")
    return source, rest.partition(":")[0], "bind" if source.startswith("/") and rest else "volume"


def _device(value):
    return str(value.get("source", "")) if isinstance(value, dict) else str(value).partition(":")[0]
