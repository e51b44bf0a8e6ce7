# SPDX-License-Identifier: MIT
"""The command line of scripts/registry."""

import argparse
import json
import os
import sys
from pathlib import Path

from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError
from factory.localregistry import DEMO_HOST
from fastlane.progress import Progress
from hub.catalog import published
from hub.kept import DEFAULT_PORT, KeptRegistry

NOT_RUNNING = 3

HELP = {
    "examples": (
        ("scripts/registry up", "start it, or say that it runs"),
        ("scripts/registry up --demo", "and put the demo's images and apps into it"),
        ("scripts/registry up --port 0", "on any free port"),
        ("scripts/registry status --endpoint", "only where it listens, for OCI_ENDPOINTS of a build with BitBake"),
        ("scripts/registry down", "end it; what it holds is there again after the next 'up'"),
    ),
    "details": (
        f"Its name is {DEMO_HOST}: scripts/composeapps, gen-recipes, build-image and demo find it under that name, "
        "whatever its port is. It listens on 127.0.0.1 only and asks for no login. It lasts until 'down' or until this "
        "machine goes down; its data, in build/registry/data, stays. Remove build/registry while it does not run to "
        "begin anew.",
    ),
    "exits": {0: "it runs (up, status), it does not (down)", 1: "failure of another kind",
              2: "wrong usage, or it listens on another port already", NOT_RUNNING: "it does not run (status)",
              5: "it does not start or answer: its port is taken, its files are another user's", 130: None},
    "environment": ("COMPOSEAPPS_BUILD", "COMPOSEAPPS_MIRROR"),
}


def port(text):
    """Parse the number of a TCP port, 0 for a free one."""
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port, 0 to 65535")
    return int(text)


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/registry", "Run a registry for images and apps on this machine, which lasts until it is "
                    "told to end.")
    parser.describe(**HELP)
    parser.add_argument("action", choices=("up", "down", "status"), help="start it, end it, or say how it is")
    parser.add_argument("--port", type=port, metavar="N",
                        help="with up: the port of 127.0.0.1 (default: the one that it had before, else "
                        f"{DEFAULT_PORT}, or a free one where that is taken)")
    parser.add_argument("--demo", action="store_true", help="with up: put the demo's images and apps into it")
    parser.add_argument("--endpoint", action="store_true",
                        help="with up and status: print only NAME=URL, for OCI_ENDPOINTS and COMPOSEAPPS_ENDPOINTS")
    parser.common.add_argument("--json", action="store_true", help="print how it is as JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.action != "up" and (arguments.demo or arguments.port is not None):
        parser.error(f"{'--demo' if arguments.demo else '--port'} goes with up")
    if arguments.endpoint and (arguments.json or arguments.action == "down"):
        parser.error("--endpoint goes with up or status, without --json")
    return arguments


def main(argv, top, build):
    """Run the command; ``top`` is the repository, ``build`` the directory for products. Returns the exit status."""
    arguments = parse(argv)
    try:
        return _run(arguments, Path(top), Path(build))
    except ComposeAppsError as err:
        print(f"registry: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("registry: interrupted", file=sys.stderr)
        return 130


def _run(arguments, top, build):
    registry = KeptRegistry(build)
    if arguments.action == "down":
        ended = registry.down()
        _report(arguments, registry, registry.state(), [], "ended" if ended else "did not run")
        return 0
    if arguments.action == "up":
        before = registry.state().pid
        state = registry.up(arguments.port)
        if arguments.demo:
            _publish_demo(state.endpoint, top, build)
        said = "runs already" if before else "started"
    else:
        state = registry.state()
        said = "runs" if state.pid else "does not run"
    apps = published(state.endpoint) if state.pid else []
    _report(arguments, registry, state, apps, said)
    return 0 if state.pid else NOT_RUNNING


def _publish_demo(endpoint, top, build):
    # What makes images takes longer to import than all the rest.
    from factory.demo import publish_demo

    progress = Progress()
    with progress.step("making and publishing the demo apps"):
        publish_demo(endpoint, top, build, progress=progress.detail)


def _report(arguments, registry, state, repositories, said):
    if arguments.endpoint:
        if state.pid:
            print(state.endpoint)
        else:
            print("registry: it does not run: scripts/registry up", file=sys.stderr)
    elif arguments.json:
        print(json.dumps({
            "running": bool(state.pid), "pid": state.pid, "port": state.port, "url": state.url, "host": DEMO_HOST,
            "endpoint": state.endpoint, "repositories": repositories, "data": str(registry.storage),
            "log": str(registry.log),
        }, indent=2))
    else:
        _print_text(arguments, registry, state, repositories, said)


def _print_text(arguments, registry, state, repositories, said):
    data = os.path.relpath(registry.storage)
    if not state.pid:
        kept = f"; what it holds is in {data}" if registry.storage.is_dir() else ""
        print(f"{DEMO_HOST} {said}{kept}\nscripts/registry up starts it")
        return
    print(f"{DEMO_HOST} {said} at {state.url}, its data in {data}")
    for repository in repositories:
        print(f"  {DEMO_HOST}/{repository['name']}: {', '.join(repository['tags']) or 'no tag'}")
    if not repositories:
        print("  it is empty: 'scripts/registry up --demo' puts the demo's images and apps into it")
    if arguments.action == "up":
        print(f"""
next, with an app of yours in the directory shop:
  scripts/composeapps publish shop {DEMO_HOST}/factory/shop:v1
  scripts/gen-recipes --app {DEMO_HOST}/factory/shop:v1
  scripts/build-image --preload shop
  scripts/run-qemu --apps --command 'composeapps ps'
for other programs: export COMPOSEAPPS_ENDPOINTS={state.endpoint}
scripts/registry down ends it.""")
