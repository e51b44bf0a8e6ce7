# SPDX-License-Identifier: MIT
"""What a version of an app says of each service, with all that the words refer to.

Read from the pinned compose file and the bundle it came in, before anything of it is unpacked. Values
are not interpolated, so a path that holds a variable may be any file of the bundle. Format: the Compose
Specification; update labels: ``composeapps.update.*``, and balena's ``io.balena.update.*`` where
ours is not given.
"""

import bisect
import hashlib
import json
import posixpath
import re
from types import MappingProxyType
from typing import NamedTuple

from composeapps.app import bundle as bundles
from composeapps.app import compose, filerefs, interpolation, tree
from composeapps.installed import expected, inputs
from composeapps.installed.expected import ENVIRONMENT_FILE
from composeapps.patterns import Pattern

DOWNLOAD_THEN_KILL, KILL_THEN_DOWNLOAD = "download-then-kill", "kill-then-download"
DELETE_THEN_DOWNLOAD, HAND_OVER = "delete-then-download", "hand-over"
STRATEGIES = (DOWNLOAD_THEN_KILL, KILL_THEN_DOWNLOAD, DELETE_THEN_DOWNLOAD, HAND_OVER)
STRATEGY_LABELS = ("composeapps.update.strategy", "io.balena.update.strategy")
# Their values are milliseconds, as in balena.
TIMEOUT_LABELS = ("composeapps.update.handover-timeout", "io.balena.update.handover-timeout")
HANDOVER_TIMEOUT = 60.0
# What a service may wait for of one that it depends on.
STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"
# What is longer names no file (PATH_MAX).
_LONGEST_PATH = 4096
# So much text of what services mount is kept at least once it was made, in characters.
_LISTED = 2 * 1024 * 1024

# The keys of services with which compose has more to do at a start than to start a container.
_AT_EACH_START = ("post_start", "pre_start", "provider", "models", "extends")

_VARIABLE = Pattern(r"\$(?:\$|\{?([A-Za-z_][A-Za-z0-9_]*))")


class Service(NamedTuple):
    """A service, with what its definition refers to.

    ``text`` is the definition without the image and the pinned hash; ``paths`` are the places in the
    bundle that it uses, "." for all of it; ``variables`` the variables of .env that it depends on,
    ``networks`` the keys of its networks, ``resources`` its (kind, key) of configs and secrets;
    ``bound_to`` maps the services that it shares something with, or is restarted with, to a phrase that
    says how; ``after`` are the services that it is started after. It has ``replicas`` containers when it
    is ``active``, which its profiles decide. ``conditions`` maps the services that ``depends_on`` names to
    (the condition, whether they must be there); ``container_name`` is "" where compose makes one up;
    ``volumes`` are the keys of its named volumes. It ``shares`` IPC, processes or volumes with another container,
    and compose ``prepares`` it at each start: that runs hooks, or writes files into it.
    """

    name: str
    image: str
    config_hash: str
    text: str
    strategy: str = DOWNLOAD_THEN_KILL
    handover_timeout: float = HANDOVER_TIMEOUT
    paths: frozenset = frozenset()
    variables: frozenset = frozenset()
    networks: frozenset = frozenset()
    resources: frozenset = frozenset()
    bound_to: dict = MappingProxyType({})
    after: frozenset = frozenset()
    replicas: int = 1
    active: bool = True
    conditions: dict = MappingProxyType({})
    container_name: str = ""
    volumes: frozenset = frozenset()
    shares: bool = False
    prepares: bool = False


class Members(dict):
    """{path: what is there} of a bundle; it does not change.

    ``names`` are the paths, sorted; ``listed`` keeps what Definition made of it for places, as text, and ``kept``
    counts its characters.
    """

    def __init__(self, *values):
        super().__init__(*values)
        self.names, self.listed, self.kept = sorted(self), {}, 0


class Definition(NamedTuple):
    """A version of an app.

    ``services`` are in the compose file's order; ``networks``, ``volumes`` and ``resources`` map keys to
    definitions as text; ``environment`` is the bundle's .env, ``members`` {path: what is there} of the
    bundle. ``project`` is the name that the compose file gives itself, "" when it has none; ``volume_names``
    maps the keys of volumes that are called otherwise than compose would do it to their names.
    """

    services: dict
    networks: dict
    volumes: dict
    resources: dict
    environment: dict
    members: dict
    project: str = ""
    warnings: tuple = ()
    volume_names: dict = MappingProxyType({})

    def files(self, service):
        """Return {path: what is there} of what a service uses of the bundle."""
        names = self.members.names if isinstance(self.members, Members) else sorted(self.members)
        found, waiting, seen = {}, list(service.paths), set()
        while waiting:
            path = self._followed(waiting.pop())
            if path in seen:
                continue
            seen.add(path)
            for name in names if path == "." else self._at(path, names):
                if name not in found:
                    entry = found[name] = self.members[name]
                    if entry[0] == "link":
                        waiting.append(posixpath.normpath(posixpath.join(posixpath.dirname(name), entry[-1])))
        return found

    def _at(self, path, names):
        """Return the members at a path and below it; ``names`` are all, sorted."""
        # "0" comes next to "/".
        below = names[bisect.bisect_left(names, f"{path}/"):bisect.bisect_left(names, f"{path}0")]
        return [path, *below] if path in self.members else below

    def _followed(self, path):
        """Return a path of the bundle with the links in its parents resolved."""
        if len(path) > _LONGEST_PATH:
            return path
        for _ in range(40):
            parts = path.split("/")
            for count in range(1, len(parts) + 1):
                entry = self.members.get("/".join(parts[:count]))
                if entry and entry[0] == "link":
                    base = posixpath.join(*parts[:count - 1]) if count > 1 else ""
                    path = posixpath.normpath(posixpath.join(base, entry[-1], *parts[count:]))
                    break
            else:
                break
        return path

    def fingerprint(self, service):
        """Return what identifies a service's definition and all that it refers to: 64 hex digits."""
        parts = (
            [(name, self.environment.get(name)) for name in sorted(service.variables)],
            [(key, self.networks.get(key)) for key in sorted(service.networks)],
            [(kind, key, self.resources.get((kind, key))) for kind, key in sorted(service.resources)],
            *([key, self.volume_names[key]] for key in sorted(service.volumes & self.volume_names.keys())),
        )
        # As json.dumps has it of a list with all of them; services that mount the same have its text made once.
        own, referred = json.dumps((service.image, service.config_hash, service.text)), json.dumps(parts)
        return hashlib.sha256(f"{own[:-1]}, {self._listed(service)}, {referred[1:]}".encode()).hexdigest()

    def _listed(self, service):
        """Return the JSON text of what a service uses of the bundle."""
        members = self.members
        # Who has all of it has the rest, too.
        paths = frozenset({"."}) if "." in service.paths else service.paths
        text = members.listed.get(paths)
        if text is None:
            text = json.dumps(sorted(self.files(service).items()))
            if members.kept > _LISTED:
                members.listed.clear()
                members.kept = 0
            members.listed[paths] = text
            members.kept += len(text)
        return text

    def managed_networks(self):
        """Return the keys of the networks that services are attached to and that compose makes."""
        used = {key for service in self.services.values() for key in service.networks}
        return {key for key in used if not json.loads(self.networks.get(key, "{}")).get("external")}

    def awaited(self):
        """Return the names of the services whose end another one waits for: they do their work once."""
        return {needed for service in self.services.values()
                for needed, (condition, _required) in service.conditions.items() if condition == COMPLETED}

    def levels(self):
        """Return what ``levels`` does of the services."""
        return levels({name: service.after for name, service in self.services.items()})

    def ordered(self):
        """Return what ``ordered`` does of the services."""
        return ordered({name: service.after for name, service in self.services.items()})


def ordered(after):
    """Return the names of services, each behind those that it is started after.

    Arguments:
        after: {service: the names of those that it is started after}.
    """
    result, begun, waiting = [], set(), list(reversed(after))
    while waiting:
        name = waiting.pop()
        if name is None:
            result.append(waiting.pop())
        elif name in after and name not in begun:
            begun.add(name)
            # It comes behind what it needs; the mark stands for that.
            waiting += [name, None, *sorted(after[name], reverse=True)]
    return result


def levels(after):
    """Return {service: how many others are started one after the other before it}, given what ``ordered`` is."""
    found = {}
    for name in ordered(after):
        # In a circle somebody has to be the first.
        found[name] = max((found[needed] + 1 for needed in after[name] if needed in found), default=0)
    return found


def started_after(value):
    """Return the names of the services that a service of a compose file, a mapping, is started after."""
    return frozenset(_depends_on(value)) | frozenset(_bound_to(value))


def of(app, environment=""):
    """Return the Definition of an App of which the bundle's contents are known.

    Arguments:
        app: the App.
        environment: the text of the device's .env, which counts where the bundle has none.

    Raises CorruptError for a compose file that is none.
    """
    what = f"app {app.ref}"
    pinned = {service.name: service for service in compose.services(app.compose, what)}
    value = compose.pinned(app.compose, what)
    raw = value["services"]
    texts = app.contents.texts({ENVIRONMENT_FILE, *(
        path for service in raw.values() for path in filerefs.environment_files(service))})[0]
    members, contents = _members(app.contents), {name: data.decode(errors="replace") for name, data in texts.items()}
    environment = expected.environment(contents.get(ENVIRONMENT_FILE, environment))
    tops = {kind: _mapping(value.get(kind)) for kind in ("networks", "volumes", "configs", "secrets")}
    warnings, services = [], {}
    if value.get("include"):
        warnings.append("the app includes other compose files: what is in them is not pinned, not in the store and not "
                        "started; publish it with 'composeapps publish', which takes them in")
    for name, service in raw.items():
        services[name] = _service(name, service, pinned[name], tops, environment, contents, warnings)
    networks = {key: _text(entry or {}) for key, entry in tops["networks"].items()}
    networks.setdefault("default", _text({}))
    return Definition(
        services, networks, {key: _text(entry or {}) for key, entry in tops["volumes"].items()},
        {(kind, key): _text(entry) for kind in ("configs", "secrets") for key, entry in tops[kind].items()},
        environment, members, value.get("name") if isinstance(value.get("name"), str) else "", tuple(warnings),
        {key: name for key, entry in tops["volumes"].items() if (name := _volume_name(key, entry, environment))})


def from_store(app, store, config):
    """Return the Definition of an App whose bundle is in the store, on a device; raises NotFoundError too."""
    return of(tree.whole(app, store), inputs.owners_environment(config, app.ref))


def _service(name, value, pinned, tops, environment, contents, warnings):
    labels = compose.service_labels(value, name, "the compose file")
    text = _text({**{key: entry for key, entry in value.items() if key not in ("image", "labels")},
                  "labels": {key: entry for key, entry in labels.items() if key != compose.CONFIG_HASH}})
    networks, resources = _networks(value), _resources(value)
    referred = [text, *(_text(tops["networks"].get(key)) for key in networks),
                *(_text(tops[kind].get(key)) for kind, key in resources),
                *(contents.get(path, "") for path in filerefs.environment_files(value))]
    variables = {match[1] for part in referred for match in _VARIABLE.finditer(part) if match[1]}
    variables |= _passed_on(value.get("environment"))
    variables |= {str(entry["environment"]) for kind, key in resources
                  if "environment" in (entry := _mapping(tops[kind].get(key)))}
    strategy = _strategy(name, value, labels, warnings)
    return Service(
        name, pinned.image, pinned.config_hash, text, strategy, _timeout(name, labels, warnings),
        frozenset(_paths(name, value, resources, tops)), frozenset(variables), networks, resources, _bound_to(value),
        started_after(value),
        expected.replicas(pinned.replicas, environment), expected.is_active(pinned.profiles, environment),
        _conditions(value, environment), interpolation.replaced(value.get("container_name") or "", environment),
        _volumes(value),
        bool(value.get("volumes_from")) or any(":" in str(value.get(key) or "") for key in ("ipc", "pid")),
        any(key in value for key in _AT_EACH_START)
        or any(_mapping(tops[kind].get(key)).keys() & {"content", "environment"} for kind, key in resources))


def _strategy(name, value, labels, warnings):
    wanted = next((str(labels[key]) for key in STRATEGY_LABELS if labels.get(key)), DOWNLOAD_THEN_KILL)
    if wanted not in STRATEGIES:
        warnings.append(f"service '{name}': '{wanted}' is no update strategy ({', '.join(STRATEGIES)}): "
                        f"it is updated by {DOWNLOAD_THEN_KILL}")
        return DOWNLOAD_THEN_KILL
    obstacle = _cannot_stand_beside(value) if wanted == HAND_OVER else None
    if obstacle:
        warnings.append(f"service '{name}' cannot hand over, since it has {obstacle}: "
                        f"it is updated by {DOWNLOAD_THEN_KILL}")
        return DOWNLOAD_THEN_KILL
    return wanted


def _cannot_stand_beside(value):
    """Return why two containers of a service cannot run at a time, or None."""
    if value.get("container_name"):
        return "a container_name"
    for port in _list(value.get("ports")):
        if isinstance(port, dict):
            fixed = port.get("published") not in (None, "", 0, "0")
        else:
            # [address:]host:container[/protocol]; the host's part may be empty.
            words = re.sub(r"\[[^]]*(?:\]|\Z)|\$\{[^}]*(?:\}|\Z)", "v", str(port).partition("/")[0]).split(":")
            fixed = len(words) > 1 and bool(words[-2])
        if fixed:
            return "a fixed port of the host"
    for network in _mapping(value.get("networks")).values():
        if isinstance(network, dict) and (network.get("ipv4_address") or network.get("ipv6_address")):
            return "a fixed address"
    return None


def _timeout(name, labels, warnings):
    text = next((str(labels[key]).strip() for key in TIMEOUT_LABELS if labels.get(key) is not None), None)
    if text is None:
        return HANDOVER_TIMEOUT
    if not text.isdecimal() or len(text) > 9:
        warnings.append(f"service '{name}': the hand-over timeout '{text}' is no number of milliseconds: "
                        f"it is {HANDOVER_TIMEOUT:.0f} s")
        return HANDOVER_TIMEOUT
    return int(text) / 1000


def _networks(value):
    if value.get("network_mode"):
        return frozenset()
    return frozenset(_names(value.get("networks")) or ("default",))


def _resources(value):
    found = set()
    for kind in ("configs", "secrets"):
        for entry in _list(value.get(kind)):
            found.add((kind, str(entry.get("source") if isinstance(entry, dict) else entry)))
    return frozenset(found)


def _bound_to(value):
    bound = {}
    for key, how in (("network_mode", "shares the network of"), ("ipc", "shares the IPC of"),
                     ("pid", "shares the processes of")):
        if str(value.get(key) or "").startswith("service:"):
            bound[str(value[key]).removeprefix("service:")] = how
    for entry in _list(value.get("volumes_from")):
        if not str(entry).startswith("container:"):
            bound[str(entry).partition(":")[0]] = "takes the volumes of"
    depends_on = value.get("depends_on")
    for needed, entry in (depends_on.items() if isinstance(depends_on, dict) else ()):
        if isinstance(entry, dict) and entry.get("restart") is True:
            bound.setdefault(str(needed), "is restarted with")
    return bound


def _volumes(value):
    """Return the keys of the named volumes that a service mounts."""
    found = set()
    for entry in _list(value.get("volumes")):
        if isinstance(entry, dict):
            found |= {str(entry.get("source"))} if entry.get("type") == "volume" and entry.get("source") else set()
        elif ":" in str(entry) and str(entry)[:1] not in (".", "/", "~", "$"):
            found.add(str(entry).partition(":")[0])
    return frozenset(found)


def _volume_name(key, entry, environment):
    """Return what a volume is called in dockerd, "" where the project's name is part of it."""
    entry = _mapping(entry)
    external = entry.get("external")
    name = entry.get("name") or _mapping(external).get("name") or (key if external else "")
    return interpolation.replaced(name, environment)


def _depends_on(value):
    return set(_names(value.get("depends_on")))


def _conditions(value, environment):
    """Return {service: (condition, whether it is required)} of what ``depends_on`` says."""
    given = value.get("depends_on")
    found = {name: entry if isinstance(entry, dict) else {} for name, entry in given.items()} \
        if isinstance(given, dict) else dict.fromkeys(map(str, _list(given)), {})
    return {str(name): (interpolation.replaced(entry.get("condition") or STARTED, environment),
                        entry.get("required") is not False) for name, entry in found.items()}


def _paths(name, value, resources, tops):
    """Return the places in the bundle that a service uses; "." for all of it."""
    used = {kind: {key: tops[kind].get(key) for of, key in resources if of == kind} for kind in ("configs", "secrets")}
    named = [*filerefs.of_service(name, value), *filerefs.of_resources(used)]
    return {place or "." for each in named if (place := each.place()) is not None and not each.outside()}


def _passed_on(environment):
    """Return the variables that a service takes over from the environment by their name alone."""
    if isinstance(environment, dict):
        return {str(name) for name, entry in environment.items() if entry is None}
    return {str(entry) for entry in _list(environment) if "=" not in str(entry)}


def _members(contents):
    """Return {path: (type, mode, digest or target)} of what the archive of a bundle has, none of what it only implies.
    """
    return Members((name, ("link", 0, member.target) if member.kind == bundles.LINK
                    else (member.kind, contents.modes.get(name, member.mode), member.digest))
                   for name, member in contents.index.items() if member != bundles.IMPLIED)


def _text(value):
    return json.dumps(value, sort_keys=True, default=str)


def _names(value):
    """Return the names in what may be a list of them or a mapping."""
    return [str(name) for name in value] if isinstance(value, (list, dict)) else []


def _mapping(value):
    return value if isinstance(value, dict) else {}


def _list(value):
    return value if isinstance(value, list) else []
