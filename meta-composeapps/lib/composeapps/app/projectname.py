# SPDX-License-Identifier: MIT
"""What docker compose calls the project of an app that it starts for the first time.

``COMPOSE_PROJECT_NAME`` of ``.env`` goes before the compose file's ``name``, and that before the name of the
directory, of which compose leaves out what no project's name may have: two apps can come to one name.
"""

import re

from composeapps.app import interpolation
from composeapps.errors import UsageError
from composeapps.patterns import Pattern

_NAME = Pattern(r"[a-z0-9][a-z0-9_-]*")
WORDS = "small letters, digits, _ and -"


def is_valid(name):
    """Tell whether docker compose takes a text for a project's name."""
    return _NAME.fullmatch(name) is not None


def default(app_name, value=None, variables=None):
    """Return the name that a version gives its project, or that docker compose makes up.

    Arguments:
        app_name: the app's name.
        value: the parsed compose file, when there is one.
        variables: those of its ``.env``.

    Made up is compose's own choice, but for apps whose name has several parts: the last one of these may be another
    app's name. No app's name has three underscores in a row.
    """
    variables = variables or {}
    given = variables.get("COMPOSE_PROJECT_NAME") or interpolation.replaced((value or {}).get("name") or "", variables)
    return given or re.sub(r"[^a-z0-9_-]", "", app_name.lower().replace("/", "___")).lstrip("_-")


def remark(app_name, value, variables):
    """Return the sentence that a publisher should read about a project's name, "" for none.

    Raises UsageError for a name that docker compose does not take.
    """
    name = default(app_name, value, variables)
    if not is_valid(name):
        raise UsageError(f"'{name}' is no name of a compose project ({WORDS}): change 'name:' of the compose file")
    if name == app_name:
        return ""
    return (f"on a device app {app_name} is the compose project '{name}', and no other app there may have that name: "
            "'name:' in the compose file gives it another one")
