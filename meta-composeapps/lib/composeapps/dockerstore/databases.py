# SPDX-License-Identifier: MIT
"""State N: files without which dockerd starts, and with which, damaged, it does not.

They are set aside. What dockerd makes anew, read in moby: without local-kv.db its default networks
(docker compose makes those of its apps); without volumes/metadata.db the local volumes, which it
lists by their directories, so that their data stays reachable and only labels and the use of other
volume drivers are forgotten; without BuildKit's files an empty build cache; without a containerd's
meta.db an empty one, which dockerd fills as it starts its containers. A volume's opts.json tells
options such as a device to be mounted; a damaged one cannot be used and keeps dockerd from starting.
"""

import json

from composeapps.dockerstore import layout
from composeapps.dockerstore.report import reason

DATABASES = {
    layout.NETWORK_DATABASE: "the database of networks",
    layout.VOLUME_DATABASE: "the database of volumes",
    layout.CONTENT_DATABASE: "the database of pulled content",
    layout.CONTAINERD_DATABASE: "containerd's database",
}


def check(run):
    """Check the databases and the options of volumes."""
    for path, what in DATABASES.items():
        _check(run, path, path, what, "set it aside; dockerd makes it anew")
    for name in run.root.names(layout.BUILDKIT):
        # They refer to each other, so all go or none.
        if name.endswith(".db") and _check(run, f"{layout.BUILDKIT}/{name}", layout.BUILDKIT, "BuildKit's database",
                                           "set BuildKit's cache aside; dockerd makes it anew"):
            break
    for name in run.root.names(layout.VOLUMES):
        _check_options(run, name)


def _check(run, path, aside, what, repair):
    """Check one file; return whether it was damaged."""
    problem = database_problem(run.root, path)
    if problem is None:
        return False
    finding = run.find("N", what, f"is damaged ({path}: {problem})", repair)
    run.apply(finding, lambda: run.actions.set_aside(aside))
    return True


def database_problem(root, path):
    """Return what is wrong with a bbolt file, None when nothing is or there is none."""
    try:
        if root.lstat(path) is None:
            return None
        absolute = root.absolute(path)
    except OSError:
        return None
    from composeapps.dockerstore import bolt

    # No content of the file may end the run.
    try:
        return bolt.problem(absolute)
    except Exception as err:
        return reason(err)


def _check_options(run, name):
    path = f"{layout.VOLUMES}/{name}/opts.json"
    try:
        data = run.root.read(path, 1024 * 1024)
    except FileNotFoundError:
        return
    except OSError:
        # dockerd only warns of what it cannot read.
        return
    try:
        document = json.loads(data)
        good = document is None or (isinstance(document, dict) and all(
            value is None or isinstance(value, dict if key.lower() == "quota" else str)
            for key, value in document.items() if key.lower() in ("mounttype", "mountopts", "mountdevice", "quota")))
    except (ValueError, RecursionError):
        good = False
    if not good:
        finding = run.find("N", f"volume {layout.shown(name)}", "has options that keep dockerd from starting "
                           f"(opts.json {'is damaged' if data else 'is empty'})",
                           "set the options aside, the volume's data stays where it is")
        run.apply(finding, lambda: run.actions.set_aside(path))
