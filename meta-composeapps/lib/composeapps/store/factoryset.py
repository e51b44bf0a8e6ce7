# SPDX-License-Identifier: MIT
"""The factory set: which apps, in which versions, the device's image was preloaded with."""

from composeapps import beneath
from composeapps.errors import CorruptError
from composeapps.oci.documents import parse_json
from composeapps.oci.names import AppName, is_name


def factory_apps(config):
    """Return {name: pinned reference} of the preloaded apps, {} for an image without any.

    Raises CorruptError when the list cannot be read.
    """
    path = config.factory_file
    value = _read(path)
    if value is None:
        return {}
    apps = value.get("apps")
    if not isinstance(apps, dict) or not all(map(is_name, apps)) or not all(
            isinstance(uri, str) for uri in apps.values()):
        raise CorruptError(f"{path} does not list the preloaded apps")
    return {AppName(name): uri for name, uri in apps.items()}


def factory_target(config):
    """Return (name, version) of the signed Target that the preloaded apps are of, ("", 0) for none.

    Raises CorruptError when the list cannot be read.
    """
    told = (_read(config.factory_file) or {}).get("target")
    name, version = (told.get("name"), told.get("version")) if isinstance(told, dict) else (None, None)
    return (name, version) if isinstance(name, str) and name and type(version) is int and version > 0 else ("", 0)


def _read(path):
    """Return the list as an object, None for none."""
    try:
        return parse_json(beneath.read_regular(path), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise CorruptError(f"{path} cannot be read ({err.strerror})") from None
