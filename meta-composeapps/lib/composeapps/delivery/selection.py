# SPDX-License-Identifier: MIT
"""Targets: what a factory signs for its devices, and which of them a device takes.

The form of ``custom`` is that of Foundries.io's factories, which LmP's devices know: ``name``, ``version`` (a text that
holds an integer), ``hardwareIds``, ``tags``, ``docker_compose_apps`` {app: {"uri"}}, ``createdAt``; what is unknown is
passed over. A Target is the device's: all its apps in one version.
"""

from typing import NamedTuple

from composeapps.errors import NotFoundError, UsageError
from composeapps.oci.names import AppName
from composeapps.oci.parsing import parse_size, shown
from composeapps.oci.reference import parse_pinned

# Apps of a Target, which each cost a device their time.
MOST_APPS = 200
# Characters of a Target's name, which goes with every request, into records and into the terminal.
LONGEST_NAME = 200


class Target(NamedTuple):
    """``name`` is its key in the metadata, NAME-VERSION as a rule; ``apps`` {app's name: pinned reference as a text}.

    ``created`` is when, as its factory wrote it, "" for not said; ``role`` the role of TUF that signed it; ``problem``
    why it cannot be installed, a sentence, "" for nothing.
    """

    name: str
    version: int
    apps: dict
    hardware_ids: tuple = ()
    tags: tuple = ()
    created: str = ""
    role: str = "targets"
    problem: str = ""

    def fits(self, hardware_id, tags):
        """Tell whether it is for a device: the hardware id is one of its, and one of the device's tags."""
        return hardware_id in self.hardware_ids and bool(set(tags) & set(self.tags))


def of(entries, role="targets"):
    """Return the Targets (a list) of (name, custom) pairs; what is no Target of apps is left out."""
    return [target for name, custom in entries if (target := parse(name, custom, role)) is not None]


def parse(name, custom, role="targets"):
    """Return the Target that ``custom`` (parsed JSON) tells of, None for something else than a version of apps.

    Odd fields do not spoil the others: a Target that cannot be installed has a ``problem``.
    """
    if not isinstance(custom, dict) or not isinstance(custom.get("version"), str | int):
        return None
    version = parse_size(custom["version"])
    if version is None:
        return Target(name, 0, {}, problem=f"its version {shown(str(custom['version']))} is no whole number", role=role)
    if len(name) > LONGEST_NAME or not name.isascii() or not name.isprintable():
        return Target(name, version, {}, problem=f"the name {shown(name)} has more than {LONGEST_NAME} characters, or "
                      "some that no name has", role=role)
    apps, problem = {}, ""
    listed = custom.get("docker_compose_apps")
    listed = {} if listed is None else listed
    if not isinstance(listed, dict) or len(listed) > MOST_APPS:
        listed, problem = {}, "its list of apps cannot be read"
    for app, entry in listed.items():
        try:
            apps[app] = _reference(app, entry)
        except UsageError as err:
            problem = str(err)
    created = custom.get("updatedAt") or custom.get("createdAt") or ""
    return Target(name, version, apps, _texts(custom.get("hardwareIds")), _texts(custom.get("tags")),
                  created if isinstance(created, str) else "", role, problem)


def _reference(app, entry):
    AppName(app, "its app")
    uri = entry.get("uri") if isinstance(entry, dict) else None
    if not isinstance(uri, str):
        raise UsageError(f"its app {app} has no uri")
    ref = parse_pinned(uri)
    # The device installs it by the name that its repository gives it.
    if ref.app_name != app:
        raise UsageError(f"its app {app} has the uri of another one, {uri}")
    return str(ref.pinned(ref.digest))


def _texts(value):
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def choose(targets, hardware_id, tags):
    """Return the Target that a device takes of those that are signed: the highest version for it, None for none.

    Of equal versions the last by name is taken, so that all devices take the same.
    """
    fitting = [target for target in targets if target.fits(hardware_id, tags) and not target.problem]
    return max(fitting, key=lambda target: (target.version, target.name), default=None)


def decide(targets, config, current, wanted="", where=""):
    """Return (the Target that a device is to install, "") of those that are offered, or (None, why there is none).

    Arguments:
        targets: the Targets.
        config: the device's Config.
        current: the record.Installed that it has, None for none. An older one comes by its name only.
        wanted: the name of one, "" for the newest.
        where: words that say where they are, for sentences: " in the bundle"; "" for the factory's server.

    Raises NotFoundError for one that is not among them, UsageError for one that is not for this device.
    """
    if wanted:
        chosen = next((each for each in targets if each.name == wanted), None)
        if chosen is None:
            raise NotFoundError(f"the factory has signed no Target '{wanted}' for this device's tag{where}")
        if chosen.problem:
            raise UsageError(f"Target {chosen.name} cannot be installed: {chosen.problem}")
        if not chosen.fits(config.hardware_id, config.tags):
            raise UsageError(f"Target {chosen.name} is for other devices: hardware {', '.join(chosen.hardware_ids)}, "
                             f"tags {', '.join(chosen.tags)}")
        return chosen, ""
    chosen = choose(targets, config.hardware_id, config.tags)
    if chosen is None:
        return None, f"of what the factory has signed{where} nothing is for this device's hardware id and tags"
    if current and chosen.version < current.version and current.tag in chosen.tags:
        return None, (f"Target {current.name} is installed, and what the factory offers{where or ' now'}, "
                      f"{chosen.name}, is older: it is not installed by itself")
    if current and chosen.name == current.name and shortlist(chosen, config.apps) == current.apps:
        return None, f"nothing new: Target {current.name} is installed"
    return chosen, ""


def shortlist(target, apps):
    """Return {app: uri} of a Target for a device that has a list of ``apps``; None for all of them."""
    return {app: uri for app, uri in target.apps.items() if apps is None or app in apps}
