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
    try:
        data = beneath.read_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as err:
        raise CorruptError(f"{path} cannot be read ({err.strerror})") from None
    apps = parse_json(data, str(path)).get("apps")
    if not isinstance(apps, dict) or not all(map(is_name, apps)) or not all(
            isinstance(uri, str) for uri in apps.values()):
        raise CorruptError(f"{path} does not list the preloaded apps")
    return {AppName(name): uri for name, uri in apps.items()}
