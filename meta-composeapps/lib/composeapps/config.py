# SPDX-License-Identifier: MIT
"""The device's configuration: ``/etc/composeapps/config.toml``.

The section ``[pacman]`` has the names that LmP's users know; ``[composeapps]`` has ours. Every
key is optional, an unknown one is an error.
"""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from composeapps.errors import UsageError

DEFAULT_FILE = Path("/etc/composeapps/config.toml")


@dataclass(frozen=True)
class Config:
    """Where things are on this device.

    ``store`` is the restorable store; ``compose_root`` holds the unpacked bundles;
    ``factory_file`` lists the preloaded apps; ``factory_store`` is a read-only store that has them
    too, where the device has one; ``state_dir`` is the agent's own;
    ``docker_host`` is dockerd's socket, as in DOCKER_HOST; ``compose_command`` is the argument
    list that starts docker compose, empty to look for it.
    """

    store: Path = Path("/var/sota/reset-apps")
    compose_root: Path = Path("/var/sota/compose-apps")
    factory_file: Path = Path("/usr/share/composeapps/factory.json")
    factory_store: Path = Path("/factory/reset-apps")
    state_dir: Path = Path("/var/lib/composeapps")
    docker_host: str = "unix:///run/docker.sock"
    compose_command: tuple = ()


# Section, key -> field.
_KEYS = {
    ("pacman", "reset_apps_root"): "store",
    ("pacman", "compose_apps_root"): "compose_root",
    ("composeapps", "factory_file"): "factory_file",
    ("composeapps", "factory_store"): "factory_store",
    ("composeapps", "state_dir"): "state_dir",
    ("composeapps", "docker_host"): "docker_host",
    ("composeapps", "compose_command"): "compose_command",
}


def load(path=None, overrides=None):
    """Read the configuration.

    Arguments:
        path: the file; None for the default one, which may be missing.
        overrides: {field: value} from the command line; None values do not count.

    Raises UsageError naming the file and the key at fault.
    """
    values = _read(Path(path) if path else DEFAULT_FILE, required=path is not None)
    values.update({key: value for key, value in (overrides or {}).items() if value is not None})
    for key in ("store", "compose_root", "factory_file", "factory_store", "state_dir"):
        if key in values:
            values[key] = Path(values[key]).absolute()
    return replace(Config(), **values)


def _read(path, required):
    try:
        with open(path, "rb") as stream:
            document = tomllib.load(stream)
    except FileNotFoundError:
        if required:
            raise UsageError(f"the configuration file {path} does not exist") from None
        return {}
    except OSError as err:
        raise UsageError(f"the configuration file {path} cannot be read: {err.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise UsageError(f"the configuration file {path} is not TOML: {err}") from None
    values = {}
    for section, entries in document.items():
        if not isinstance(entries, dict):
            raise UsageError(f"{path}: '{section}' belongs into a section, [pacman] or [composeapps]")
        for key, value in entries.items():
            field = _KEYS.get((section, key))
            if field is None:
                known = ", ".join(name for where, name in _KEYS if where == section) or "none here"
                raise UsageError(f"{path}: unknown key '{key}' in [{section}]; known: {known}")
            values[field] = _checked(path, key, field, value)
    return values


def _checked(path, key, field, value):
    if field == "compose_command":
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            raise UsageError(f"{path}: '{key}' is not a list of words")
        return tuple(value)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{path}: '{key}' is not a text")
    if field not in ("docker_host",) and not value.startswith("/"):
        raise UsageError(f"{path}: '{key}' is not an absolute path")
    return value
