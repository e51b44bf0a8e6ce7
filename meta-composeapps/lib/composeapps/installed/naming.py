# SPDX-License-Identifier: MIT
"""What an app's compose project is called.

An app keeps the name that its project had first, whatever later versions say: its volumes have that name.
It is written down before the first container is made; where the note is lost, the containers tell, and
where there are none, the version does as docker compose has it: ``COMPOSE_PROJECT_NAME`` of ``.env``, the
compose file's ``name``, the name of the directory. Two apps never have the same project: each would take
the other's containers for its own.
"""

import contextlib
import os
from _thread import allocate_lock  # threading takes time to load

from composeapps import durable
from composeapps.app.projectname import WORDS, default, is_valid
from composeapps.engine import owned
from composeapps.engine.labels import PROJECT, WORKING_DIR
from composeapps.errors import ComposeAppsError, UsageError
from composeapps.installed import expected
from composeapps.oci.names import AppName
from composeapps.records import sealed
from composeapps.records.state import app_of

_claiming = allocate_lock()
_NOTHING = sealed.Found(None)


def name_of(app_name, directory, value, variables, states, engine):
    """Return the name of an app's project: the one that it has, else the one that this version gives.

    Arguments:
        directory: where the app is unpacked.
        states: the StateDirectory.
        engine: the Engine; None when dockerd is not to be asked.
        app_name, value, variables: as ``default`` has them.

    Raises EngineError.
    """
    return (_noted(states, app_name) or next(iter(owned.projects(engine, directory) if engine else ()), "")
            or default(app_name, value, variables))


def claim(app_name, directory, name, states, engine):
    """Note the name of an app's project before anything of it is made; raises what ``check`` does, StorageError."""
    # Apps are started beside each other: none gets its name between another one's look and its note.
    with _claiming:
        check(app_name, directory, name, states, engine)
        if _noted(states, app_name) != name:
            owners, states.projects = _owners(states), None
            with durable.storage_errors(f"noting the compose project of app {app_name}"), \
                    durable.if_there_is_room(), states.changing(_record(app_name)):
                sealed.write(states.root, _record(app_name), sealed.dump({"name": name}))
                owners.setdefault(name, []).append(app_name)
                states.projects = _stamps(states), owners


def check(app_name, directory, name, states, engine):
    """Raise UsageError when a project's name is not the app's to have.

    Another app or another directory has it, or docker compose does not take it. Raises EngineError.
    """
    remedy = f"give app {app_name} another one by 'name:' in its compose file"
    if not is_valid(name):
        raise UsageError(f"app {app_name}: '{name}' is no name of a compose project ({WORDS}): "
                         f"{remedy}")
    other = next((each for each in _owners(states).get(name, ())
                  if each != app_name and _noted(states, each) == name and states.find(each) != _NOTHING), None)
    if other is not None:
        raise UsageError(f"app {app_name}: app {other} has the compose project's name '{name}' already: {remedy}")
    for container in engine.containers(f"{PROJECT}={name}"):
        place = (container.get("Labels") or {}).get(WORKING_DIR)
        if place != str(directory):
            raise UsageError(f"app {app_name}: the compose project's name '{name}' belongs to containers that were "
                             f"started from {place or 'elsewhere'}: remove these, or {remedy}")


def all_of(app_name, directory, compose_file, states, engine):
    """Return all names under which there may be something of an app in dockerd.

    Arguments:
        compose_file: the content of its compose file (bytes), or None: then nothing can have been started
            that neither the note nor a container tells of.
        engine: the Engine, or None when it cannot be asked.
        app_name, directory, states: as ``name_of`` has them.

    Raises EngineError.
    """
    from composeapps.app import compose

    found = {_noted(states, app_name), *(owned.projects(engine, directory) if engine else ())}
    if compose_file is not None and not found - {""}:
        with contextlib.suppress(ComposeAppsError):
            value = compose.load(compose_file, "the compose file")
            found.add(default(app_name, value, expected.environment_in(directory)))
    return found - {""}


def forget(states, app_name):
    """Forget the name of an app of which no volume is left; raises StorageError."""
    states.projects = None
    with durable.storage_errors(f"forgetting the compose project of app {app_name}"), \
            states.changing(_record(app_name)):
        sealed.remove(states.root, _record(app_name))


def _noted(states, app_name):
    name = (states.read(_record(app_name)).value or {}).get("name")
    return name if isinstance(name, str) and is_valid(name) else ""


def _owners(states):
    """Return {name of a project: apps that may have noted it}, read once until a record changes."""
    stamps, known = _stamps(states), states.projects
    if known is not None and known[0] == stamps:
        return known[1]
    found = {}
    for app in filter(None, map(app_of, sealed.names(states.root, "projects"))):
        found.setdefault(_noted(states, app), []).append(app)
    states.projects = stamps, found
    return found


def _stamps(states):
    """Return what changes of the directories of the records with each one that is written or removed."""
    found = []
    for place in ("projects", f"{sealed.COPIES}/projects"):
        with contextlib.suppress(OSError):
            status = os.stat(f"{states.root}/{place}")
            found.append((place, status.st_ino, status.st_mtime_ns))
    return found


def _record(app_name):
    return f"projects/{AppName(app_name).file_stem}.json"
