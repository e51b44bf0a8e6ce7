# SPDX-License-Identifier: MIT
"""How an app's containers stand to its definition, and what is to become of each; nothing is touched here."""

import re
import time

from composeapps.app import compose
from composeapps.engine.labels import FINGERPRINT, NETWORK, NETWORK_DEFINITION, PROJECT, WORKING_DIR, label, number
from composeapps.errors import UsageError
from composeapps.installed import expected
from composeapps.patterns import Pattern
from composeapps.switching import changes as differences
from composeapps.switching import definition

# How a service gets to where it should be: start what is there or missing, have compose replace what is old, hand
# over, or remove the old beside the new.
START, UP, HAND_OVER, DROP = "start", "up", "hand-over", "drop"
# How the name of a container begins that gave its own to another one.
ASIDE = "composeapps-"
# A recreated container's name until the old one is gone.
TEMPORARY = Pattern(r"/?([0-9a-f]{12})_(.+)")


class Standing:
    """What is there of a project, and what is to be done with it.

    Arguments:
        project: the Project, with its definition.
        changes: the Changes that led to it; None when only the containers tell.
        hand_over: whether services that ask for it are handed over.
        notify: called with a line of text about what stays as it is.
        rested: of an app that was stopped the IDs of the containers that had done their work; else None.
    """

    def __init__(self, project, changes, hand_over, notify, rested):
        self._project, self._engine, self._definition = project, project.engine, project.definition
        self._changes, self._hand_over, self._notify, self.rested = changes, hand_over, notify, rested
        self._changed = {change.name for change in changes.of(differences.CHANGED)} if changes else set()
        self._hashes = {service.name: service.config_hash for service in self._definition.services.values()}
        self._ids, self._awaited = {}, self._definition.awaited()

    def left(self):
        """Return [(service, how it gets to where it should be), …] in order, without those that are there."""
        return self.modes(self._project.containers())

    def modes(self, containers):
        """Return what ``left`` does of the project's containers."""
        present = {each["Id"] for found in containers.values() for each in found}
        return [(name, mode) for name in self._definition.ordered()
                if (mode := self._mode(name, containers, present)) is not None]

    def leavers(self, containers):
        """Yield the containers of services that there are no more."""
        gone = {change.name for change in self._changes.of(differences.REMOVED)} if self._changes else set()
        for name, found in containers.items():
            if name in gone or name not in self._definition.services:
                yield from found

    def old(self, name):
        """Return the containers of a service that are not of the wanted version."""
        return [each for each in self._project.containers().get(name, []) if not self.is_current(name, each)]

    def _mode(self, name, containers, present):
        """Return how a service gets to where it should be, None when it is there; ``present`` are containers' IDs."""
        service, found = self._definition.services[name], containers.get(name, [])
        if not service.active and not any(each["State"].get("Running") for each in found):
            return None
        current = [each for each in found if self.is_current(name, each) and not _is_dangling(each, present)]
        old = [each for each in found if each not in current]
        wanted = service.replicas if service.active else max(1, len(current))
        if old and current and len(current) >= wanted and not self._is_waiting(service, old, current):
            return DROP
        if old:
            return HAND_OVER if self._is_handed_over(service, old) else UP
        if len(current) > wanted:
            return UP
        if len(current) < wanted or any(self.needs_start(name, each) for each in current):
            return START
        return None

    def _is_waiting(self, service, old, current):
        """Tell whether a hand-over was interrupted: the new containers came after the old ones, which still run."""
        return self._is_handed_over(service, old) and min(map(number, current)) > max(map(number, old))

    def _is_handed_over(self, service, old):
        return self._hand_over and service.strategy == definition.HAND_OVER \
            and any(each["State"].get("Running") for each in old)

    def with_bound(self, modes, containers):
        """Add the services that have to be replaced or restarted with others to what is to be done, in order."""
        known = dict(modes)
        for name in self._definition.ordered():
            service = self._definition.services[name]
            if any(known.get(needed) in (UP, HAND_OVER) for needed in service.bound_to) and containers.get(name):
                known[name] = UP
        return [(name, known[name]) for name in self._definition.ordered() if name in known]

    def is_current(self, name, container):
        """Tell whether a container is of the wanted version."""
        service = self._definition.services.get(name)
        if service is None:
            return False
        mark = label(container, FINGERPRINT)
        if mark:
            return mark == self._project.fingerprint(name)
        # One that another agent made: what has not changed is left alone.
        if name in self._changed or label(container, compose.CONFIG_HASH) != self._hashes[name]:
            return False
        if name not in self._ids:
            self._ids[name] = self._engine.image_id(self._project.images[name])
        return container.get("Image") == self._ids[name]

    def needs_start(self, name, container):
        """Tell whether a container of the wanted version is to be started."""
        state = container["State"]
        if state.get("Running") or state.get("Restarting"):
            return False
        if not expected.is_finished(container):
            return True
        # One that did its work rests, unless it was 'composeapps stop' or the shutdown of the device that ended it.
        if name in self._awaited:
            return False
        if self.rested is not None:
            return container["Id"] not in self.rested
        from composeapps.switching import locks

        with open("/proc/uptime") as uptime:
            booted = time.time() - float(uptime.read().split()[0])
        return locks.instant(state.get("FinishedAt")) < booted

    def borrowed(self, containers):
        """Yield the containers that have a name which another service's is to have."""
        wanted = owners(self._project)
        for name, found in containers.items():
            for container in found:
                if wanted.get(name_of(container), name) != name:
                    yield container

    def misnamed(self, containers):
        """Yield (a container of the wanted version, the name that it is to have and has not)."""
        for name, found in containers.items():
            for container in found:
                service = self._definition.services.get(name)
                if service is None or not self.is_current(name, container):
                    continue
                proper = service.container_name or f"{self._project.name}-{name}-{number(container)}"
                if name_of(container) != proper and (service.container_name or name_of(container).startswith(ASIDE)):
                    yield container, proper

    def networks(self, containers):
        """Return (network as dockerd describes it, the project's containers on it) of those to be made anew."""
        found = []
        for key in sorted(self._definition.managed_networks()):
            listed = self._project.network(key)
            mark = (listed.get("Labels") or {}).get(NETWORK_DEFINITION) if listed else None
            changed = self._changes is not None and key in self._changes.networks
            if listed is None or mark == self._project.network_definition(key) or not mark and not changed:
                continue
            network = self._engine.network(listed["Id"])
            users = [each for found in containers.values() for each in found
                     if network["Name"] in ((each.get("NetworkSettings") or {}).get("Networks") or {})]
            if set(network.get("Containers") or {}) - {each["Id"] for each in users}:
                self._notify(f"{self._project.app_name}: network {key} is defined otherwise now, but containers of "
                             "others are on it: it is kept as it is")
            else:
                found.append((network, users))
        return found

    def networks_without_services(self):
        """Return the project's networks that no service is to be attached to any more."""
        networks = self._engine.networks(f"{PROJECT}={self._project.name}")
        managed = {None, "", *self._definition.managed_networks()}
        return [network for network in networks if (network.get("Labels") or {}).get(NETWORK) not in managed]


def check_names(project):
    """Raise UsageError when a container that is not the app's has a name that one of the app's is to have."""
    wanted = owners(project)
    for container in project.engine.containers() if wanted else ():
        names = {name.lstrip("/") for name in container.get("Names") or ()}
        for name in names & wanted.keys():
            if (container.get("Labels") or {}).get(WORKING_DIR) != str(project.directory):
                raise UsageError(f"app {project.app_name}: the container_name '{name}' is taken by a container "
                                 f"that is not the app's ({container['Id'][:12]}): remove or rename that one")


def owners(project):
    """Return {container_name: service} of the services that have one and are started."""
    return {service.container_name: name for name, service in project.definition.services.items()
            if service.container_name and service.active}


def is_untidy(container):
    """Tell whether a container is one that an interrupted compose left, is about to go, or was paused."""
    return TEMPORARY.fullmatch(container["Name"]) is not None \
        or container["State"].get("Status") in ("removing", "dead", "paused")


def name_of(container):
    """Return the name of a container that dockerd described."""
    return container["Name"].lstrip("/")


def _is_dangling(container, present):
    """Tell whether a container shares something with another one that is gone; ``present`` are the IDs that are there.
    """
    host = container.get("HostConfig") or {}
    shared = [str(host.get(key) or "").removeprefix("container:") for key in ("NetworkMode", "IpcMode", "PidMode")
              if str(host.get(key) or "").startswith("container:")]
    shared += [str(entry).partition(":")[0] for entry in host.get("VolumesFrom") or ()]
    return any(re.fullmatch("[0-9a-f]{64}", identifier) and identifier not in present for identifier in shared)
