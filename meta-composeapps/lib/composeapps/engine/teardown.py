# SPDX-License-Identifier: MIT
"""Taking a compose project away from dockerd: its containers and networks, and its volumes when asked to.

dockerd's labels tell what belongs to a project, so this needs neither docker compose nor the files
that the project was started from. Each step can be repeated.
"""

from composeapps.engine import client, owned
from composeapps.engine.labels import PROJECT


class Gone:
    """The names of what was removed."""

    def __init__(self):
        self.containers, self.networks, self.volumes = [], [], []


def take_down(engine, directory, projects, volumes=False, notify=lambda text: None):
    """Stop and remove the containers that were started from a directory, then the networks of their projects.

    Arguments:
        engine: the Engine.
        directory: the project's directory.
        projects: names of its compose projects besides those that its containers name.
        volumes: also remove the volumes that compose made for it, and the nameless ones of its containers.
        notify: called with a line of text for each thing.

    Returns Gone. Networks and volumes stay while a project of the same name in another directory has
    containers. Volumes that the compose file calls external are never removed. Raises EngineError.
    """
    gone = Gone()
    projects = set(projects) | set(owned.projects(engine, directory))

    def end(container):
        engine.stop(container["Id"])
        # With force, because its restart policy may have brought it back by now.
        engine.remove("containers", container["Id"], force="1", v="1" if volumes else "0")

    containers = owned.listed(engine, directory)
    for container in containers:
        notify(f"stopping {_name(container)}")
    # Each may take the time that it has to end.
    client.each(end, containers)
    gone.containers += map(_name, containers)
    for project in sorted(projects):
        label = f"{PROJECT}={project}"
        if engine.containers(label):
            continue
        for network in engine.networks(label):
            engine.remove("networks", network["Id"])
            gone.networks.append(network["Name"])
        for volume in engine.volumes(label) if volumes else ():
            engine.remove("volumes", volume["Name"])
            gone.volumes.append(volume["Name"])
    return gone


def _name(container):
    return (container.get("Names") or [container["Id"][:12]])[0].lstrip("/")
