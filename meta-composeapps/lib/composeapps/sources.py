# SPDX-License-Identifier: MIT
"""Which files this package is made of, for the recipes that install it or build with it."""

import ast
import os

PACKAGE = os.path.dirname(os.path.abspath(__file__))
# What a factory signs with, and the commands for that. A device has neither: it has no keys of a factory either.
FACTORY_SIDE = ("signing/", "cli/bundle.py", "cli/target.py", "cli/target_actions.py", "cli/target_help.py")


def directories():
    """Return the package's directories (absolute paths), sorted: where a new file would appear."""
    found = []
    for place, below, _files in os.walk(PACKAGE):
        below[:] = [name for name in below if name != "__pycache__"]
        found.append(place)
    return sorted(found)


def files():
    """Return all of the package's source files, sorted, as paths that begin with the package's name."""
    top = os.path.dirname(PACKAGE)
    return sorted(
        os.path.relpath(os.path.join(place, name), top)
        for place in directories() for name in os.listdir(place) if name.endswith(".py"))


def device_files():
    """Return those of ``files`` that a device gets."""
    top = os.path.basename(PACKAGE)
    return [path for path in files() if not path[len(top) + 1:].startswith(FACTORY_SIDE)]


def needed_by(module):
    """Return the files (absolute paths, sorted) of a module of this package and of all that it imports of it.

    Arguments:
        module: the module's name without the package's, "store.preload" for example.
    """
    needed, waiting = set(), [module.split(".")[0], module]
    while waiting:
        path = _path(waiting.pop())
        if path is None or path in needed:
            continue
        needed.add(path)
        with open(path, encoding="utf-8") as stream:
            tree = ast.parse(stream.read(), path)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == __package__:
                room = node.module[len(__package__):].lstrip(".")
                # Of "from room import name" either may be the module; a room's __init__ is imported with it.
                waiting += ["", room.split(".")[0], room, *(f"{room}.{each.name}".lstrip(".") for each in node.names)]
    return tuple(sorted(needed))


def _path(module):
    base = os.path.join(PACKAGE, *module.split(".")) if module else PACKAGE
    for path in (base + ".py", os.path.join(base, "__init__.py")):
        if os.path.isfile(path):
            return path
    return None
