# SPDX-License-Identifier: MIT
"""The device's configuration: ``/etc/composeapps/config.toml``.

The section ``[pacman]`` has the names that LmP's users know; ``[composeapps]`` has ours;
``[registry."HOST"]`` is described in composeapps.registry.settings. Every key is optional, an unknown
one is an error.
"""

import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from composeapps.errors import UsageError

DEFAULT_FILE = Path("/etc/composeapps/config.toml")


class Config(NamedTuple):
    """Where things are on this device.

    ``store`` is the restorable store; ``compose_root`` holds the unpacked bundles;
    ``factory_file`` lists the preloaded apps; ``factory_store`` is a read-only store that has them
    too, where the device has one; ``state_dir`` is the agent's own;
    ``docker_host`` is dockerd's socket, as in DOCKER_HOST; ``compose_command`` is the argument
    list that starts docker compose, empty to look for it; ``compose_timeout`` is how many seconds it may
    take, besides those that the app's own stop_grace_period and start_period ask for.

    ``apps`` are the names of the apps that this device should have, None for all;
    ``storage_watermark`` is how full, in percent, a file system may become by our doing;
    ``callback_program`` is run at the steps of an update, with what happened in its environment.
    ``soak_time`` is for how many seconds an updated app must be well before the update is committed,
    ``health_timeout`` how many seconds it may take to become so; a version that failed ``max_failures``
    times is rejected. ``bandwidth`` is the limit of a download in bytes a second, 0 for none;
    ``parallel`` how many blobs are fetched at a time. ``registries`` maps registries' names to their
    registryconf.RegistrySettings.
    """

    store: Path = Path("/var/sota/reset-apps")
    compose_root: Path = Path("/var/sota/compose-apps")
    factory_file: Path = Path("/usr/share/composeapps/factory.json")
    factory_store: Path = Path("/factory/reset-apps")
    state_dir: Path = Path("/var/lib/composeapps")
    docker_host: str = "unix:///run/docker.sock"
    compose_command: tuple = ()
    compose_timeout: int = 600
    apps: tuple | None = None
    storage_watermark: int = 80
    callback_program: Path | None = None
    soak_time: int = 10
    health_timeout: int = 300
    max_failures: int = 3
    bandwidth: int = 0
    parallel: int = 3
    registries: dict = MappingProxyType({})


# Section, key -> field.
_KEYS = {
    ("pacman", "reset_apps_root"): "store",
    ("pacman", "compose_apps_root"): "compose_root",
    ("pacman", "compose_apps"): "apps",
    ("pacman", "storage_watermark"): "storage_watermark",
    ("pacman", "callback_program"): "callback_program",
    ("composeapps", "factory_file"): "factory_file",
    ("composeapps", "factory_store"): "factory_store",
    ("composeapps", "state_dir"): "state_dir",
    ("composeapps", "docker_host"): "docker_host",
    ("composeapps", "compose_command"): "compose_command",
    ("composeapps", "compose_timeout"): "compose_timeout",
    ("composeapps", "soak_time"): "soak_time",
    ("composeapps", "health_timeout"): "health_timeout",
    ("composeapps", "max_failures"): "max_failures",
    ("composeapps", "bandwidth"): "bandwidth",
    ("composeapps", "parallel"): "parallel",
}
# Field -> the least and the greatest number that it takes.
_NUMBERS = {
    "storage_watermark": (20, 95),
    "compose_timeout": (10, 86400),
    "soak_time": (0, 86400),
    "health_timeout": (1, 86400),
    "max_failures": (1, 1000),
    "bandwidth": (0, 10**12),
    "parallel": (1, 32),
}
_LONGEST_FILE, _LONGEST_LINE = 256 * 1024, 4096
_PATHS = ("store", "compose_root", "factory_file", "factory_store", "state_dir", "callback_program")


def load(path=None, overrides=None):
    """Read the configuration.

    Arguments:
        path: the file; None for the default one, which may be missing.
        overrides: {field: value} from the command line; None values do not count.

    Raises UsageError naming the file and the key at fault.
    """
    values = _read(Path(path) if path else DEFAULT_FILE, required=path is not None)
    values.update({key: value for key, value in (overrides or {}).items() if value is not None})
    for key in _PATHS:
        if key in values:
            values[key] = Path(values[key]).absolute()
    return Config(**values)


def _read(path, required):
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LONGEST_FILE + 1)
    except FileNotFoundError:
        if required:
            raise UsageError(f"the configuration file {path} does not exist") from None
        return {}
    except OSError as err:
        raise UsageError(f"the configuration file {path} cannot be read: {err.strerror}") from None
    # tomllib takes memory by the square of a key's parts.
    if len(data) > _LONGEST_FILE or any(len(line) > _LONGEST_LINE for line in data.splitlines()):
        raise UsageError(f"the configuration file {path} has more than {_LONGEST_FILE} bytes, or a line with more than "
                         f"{_LONGEST_LINE}")
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as err:
        raise UsageError(f"the configuration file {path} is not TOML: {err}") from None
    values = {}
    if isinstance(document.get("registry"), dict):
        from composeapps.registry.settings import parse_section

        values["registries"] = parse_section(document.pop("registry"), path)
    for section, entries in document.items():
        if not isinstance(entries, dict):
            raise UsageError(f"{path}: '{section}' belongs into a section: [pacman], [composeapps], "
                             '[registry."HOST"]')
        for key, value in entries.items():
            field = _KEYS.get((section, key))
            if field is None:
                known = ", ".join(name for where, name in _KEYS if where == section) or "none here"
                raise UsageError(f"{path}: unknown key '{key}' in [{section}]; known: {known}")
            values[field] = _checked(path, key, field, value)
    return values


def _checked(path, key, field, value):
    if field in _NUMBERS:
        least, greatest = _NUMBERS[field]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= greatest:
            raise UsageError(f"{path}: '{key}' is not a number from {least} to {greatest}")
        return value
    if field == "apps":
        # LmP's spelling is a list in one text, and none at all when it is empty.
        if not isinstance(value, str):
            raise UsageError(f"{path}: '{key}' is not a text with the names of apps, separated by commas")
        return tuple(name.strip() for name in value.split(",") if name.strip())
    if field == "compose_command":
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            raise UsageError(f"{path}: '{key}' is not a list of words")
        return tuple(value)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{path}: '{key}' is not a text")
    if field in _PATHS and not value.startswith("/"):
        raise UsageError(f"{path}: '{key}' is not an absolute path")
    return value
