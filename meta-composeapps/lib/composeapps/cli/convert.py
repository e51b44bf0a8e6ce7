# SPDX-License-Identifier: MIT
"""composeapps convert: from old-style apps to directories that can be published. Takes PyYAML."""

import os

from composeapps.cli import output
from composeapps.errors import UsageError

HELP = {
    "examples": (
        ("composeapps convert --list", ""),
        ("composeapps convert /var/sota/compose-apps/shop --output shop --stop", ""),
        ("composeapps convert shop.dockerapp --set web.port=8080", ""),
        ("composeapps publish shop registry.example.com/factory/shop:v1", "what comes next"),
    ),
    "details": (
        "PATH is a Docker App (a .dockerapp file or directory, or a directory that has one), the directory of an app "
        "with an unpinned docker-compose.yml, or the name of an app that --list shows. The parameters of a Docker App "
        "are filled in, app.name and what else its metadata says among them, and services that x-enabled switches off "
        "are left out. What comes out is a directory for 'composeapps publish', which pins the images.",
        "With --stop the containers and networks of the old app are removed after that; its volumes stay, and the new "
        "app takes them over when its directory has the same name.",
    ),
    "exits": {3: None, 4: None, 6: None, 9: None},
}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", help="the old-style app")
    parser.add_argument("--list", action="store_true", help="list the old-style apps on this device")
    parser.add_argument("--output", metavar="DIR", help="where to write (default: the app's name, here)")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[],
                        help="a parameter's value; can be repeated")
    parser.add_argument("--stop", action="store_true", help="then remove the old app's containers and networks")
    parser.set_defaults(run=_convert)


def _convert(args):
    from pathlib import Path

    from composeapps.app import dockerapp, projectname
    from composeapps.engine import teardown
    from composeapps.engine.client import Engine
    from composeapps.oci.names import AppName, is_name
    from composeapps.records import lock
    from composeapps.records.state import StateDirectory

    if args.list == bool(args.path):
        raise UsageError("name an app to convert, or give --list, one of the two")
    config = output.load_config(args)
    engine, states = Engine(config.docker_host), StateDirectory(config.state_dir)
    if args.list:
        return _list(args, config, states, engine)
    path = Path(args.path)
    if not path.exists() and is_name(args.path) and AppName(args.path).below(config.compose_root).is_dir():
        path = AppName(args.path).below(config.compose_root)
    app = dockerapp.read(path)
    directory = app.path.parent if app.kind == dockerapp.DOCKERAPP else app.path
    parameters = dict(_parameter(text) for text in args.set)
    target = Path(args.output or app.name)
    for sentence in dockerapp.convert(app, target, parameters):
        output.notify(f"warning: {sentence}")
    gone = teardown.Gone()
    if args.stop:
        directory = directory.resolve()
        name = os.path.relpath(directory, config.compose_root.resolve())
        if name in states.names():
            raise UsageError(f"{target} was written, but {name} is installed from the store: "
                             f"'composeapps stop {name}' stops it")
        with lock.exclusive(states.lock_file):
            gone = teardown.take_down(engine, directory, {projectname.default(directory.name)}, notify=output.notify)
    if args.json:
        output.print_json({"name": app.name, "kind": app.kind, "output": str(target), "stopped": gone.containers,
                           "networks": gone.networks})
    else:
        print(f"{app.name}: written to {target}; publish it with 'composeapps publish {target} "
              f"REGISTRY/FACTORY/{app.name}'")
    return 0


def _list(args, config, states, engine):
    from composeapps.errors import EngineError
    from composeapps.installed import oldstyle

    asked = engine
    try:
        engine.containers("composeapps.none")
    except EngineError as err:
        output.notify(f"composeapps: {err}")
        asked = None
    found = oldstyle.find(config.compose_root, states, asked)
    if args.json:
        output.print_json([{"name": app.name, "kind": app.kind, "directory": str(app.directory),
                            "running": app.running if asked else None} for app in found])
    else:
        output.print_table(("NAME", "KIND", "RUNNING", "DIRECTORY"), [
            (app.name, app.kind, app.running if asked else "?", app.directory) for app in found])
    return 0


def _parameter(text):
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--set '{text}' is not of the form NAME=VALUE")
    return name, value

