# SPDX-License-Identifier: MIT
"""What the device tells its factory: the events that wait, how its apps are, what it is.

Events go in order and are forgotten when the server has answered; what it calls bad is forgotten, too, or one of them
would hold up all others for ever. The rest is told when it has changed since it was told last; what that was is
remembered until the next boot only, so that a check-in at which nothing is new writes nothing to the flash.
"""

import contextlib
import hashlib
import json
import os
import socket
from http import HTTPStatus
from pathlib import Path

from composeapps.delivery.gateway import Refused
from composeapps.errors import EngineError
from composeapps.records import history, reports

# Of one request: events, and bytes, of which the server takes 100,000.
_EVENTS, _BYTES = 50, 90_000
# Of an app's log that is told when it is not well: lines, and characters.
_LINES, _CHARACTERS = 10, 2000
_NOT_THERE = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


def events(gateway, root, notify):
    """Tell the events that wait.

    Arguments:
        gateway: the gateway.Gateway.
        root: the state directory (a Path).
        notify: called with a sentence for what the server calls bad.

    Returns whether the server takes events at all. Raises RegistryError, StorageError: what was not told stays.
    """
    waiting, most = reports.waiting(root), _EVENTS
    while waiting:
        batch = _batch(waiting, most)
        try:
            gateway.send("POST", "events", "events", json.dumps(batch).encode(), good=range(200, 300))
        except Refused as err:
            if err.status in _NOT_THERE:
                return False
            if err.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
                raise
            if len(batch) > 1:
                # Which of them it is only the server knows.
                most = max(len(batch) // 2, 1)
                continue
            notify(f"{err}; event {batch[0]['eventType']['id']} is dropped")
        reports.told(root, batch)
        waiting = waiting[len(batch):]
    return True


def _batch(waiting, most):
    batch, size = [], 0
    for each in waiting[:most]:
        size += len(json.dumps(each)) + 2
        if batch and size > _BYTES:
            break
        batch.append(each)
    return batch


class States:
    """How the apps are, told when it has changed.

    Arguments:
        config: the Config.
        memory: a mapping that is kept until the next boot; what was told last is in its "states" and "containers".
    """

    def __init__(self, config, memory):
        self._config, self._memory = config, memory

    def tell(self, gateway):
        """Tell it; return whether the server takes it. Raises RegistryError."""
        seen = self._seen()
        # Without dockerd nothing is known of them: that is not what they are.
        if seen is None or seen == self._memory.get("containers"):
            return True
        found = self._collect()
        told = _digest([[name, app["uri"], app["state"], [[each["name"], each["state"], each["health"], each["image"]]
                                                          for each in app["services"]]] for name, app in found.items()])
        if told != self._memory.get("states"):
            body = {"deviceTime": history.timestamp(), "apps": found}
            try:
                gateway.send("POST", "apps-states", "the states of the apps", json.dumps(body).encode(),
                             good=range(200, 300))
            except Refused as err:
                if err.status in _NOT_THERE:
                    return False
                if err.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
                    raise
        self._memory.update(states=told, containers=seen)
        return True

    def _seen(self):
        """Return a text that changes when containers do, None when dockerd does not tell: one request, little work."""
        from composeapps.engine.client import Engine
        from composeapps.records.state import StateDirectory

        states = StateDirectory(self._config.state_dir)
        try:
            listed = Engine(self._config.docker_host, timeout=10).containers()
        except EngineError:
            return None
        # Of "Up 5 minutes (healthy)" the health counts.
        containers = sorted([each["Id"], each.get("State", ""), (each.get("Status") or "").partition("(")[2]]
                            for each in listed)
        return _digest([containers, [[name, state.uri] for name in states.names() if (state := states.get(name))]])

    def _collect(self):
        from composeapps.status import report

        apps = {}
        for app in report.collect(self._config)["apps"]:
            services = [{"name": each["name"], "hash": "", "image": each["image"], "state": each["state"],
                         "status": each["status"], **self._logs(each),
                         "health": each["health"] or ("healthy" if each["ok"] else "unhealthy")}
                        for each in app["services"]]
            if app["uri"]:
                apps[app["name"]] = {"uri": app["uri"], "services": services,
                                     "state": "healthy" if all(each["ok"] for each in app["services"]) else "unhealthy"}
        return apps

    def _logs(self, service):
        if service["ok"] or not service["container"]:
            return {}
        from composeapps.engine.client import Engine

        with contextlib.suppress(EngineError):
            text = "\n".join(Engine(self._config.docker_host, timeout=10).logs(service["container"], _LINES))
            return {"logs": text[-_CHARACTERS:]}
        return {}


def device(gateway, memory):
    """Tell what the device is when that has changed since it was told: its hardware, and how it is on the network.

    Raises RegistryError for what may pass; a server that does not want to know is not told.
    """
    for path, what, found in (("system_info", "the hardware", _hardware()),
                              ("system_info/network", "the network", _network(gateway.base.origin.host))):
        told = _digest(found)
        if memory.get(path) == told:
            continue
        try:
            gateway.send("PUT", path, what, json.dumps(found).encode(), good=range(200, 300))
        except Refused as err:
            if err.status not in _NOT_THERE | {HTTPStatus.BAD_REQUEST}:
                raise
        memory[path] = told


def _hardware():
    system = os.uname()
    found = {"class": "system", "description": _line("/sys/firmware/devicetree/base/model")
             or _line("/sys/class/dmi/id/product_name"), "vendor": _line("/sys/class/dmi/id/sys_vendor"),
             "architecture": system.machine, "kernel": system.release, "cpus": os.cpu_count(),
             "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
    return {key: value for key, value in found.items() if value}


def _network(host):
    found = {"hostname": os.uname().nodename, "local_ipv4": "", "mac": ""}
    # A datagram socket that is connected sends nothing, and knows which way the first one would take.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, 9))
        found["local_ipv4"] = sock.getsockname()[0]
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir("/sys/class/net")):
            if name != "lo" and _line(f"/sys/class/net/{name}/operstate") == "up":
                found["mac"] = _line(f"/sys/class/net/{name}/address")
                break
    return found


def _line(path):
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")[:200]
    except OSError:
        return ""


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
