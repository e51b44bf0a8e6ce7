# SPDX-License-Identifier: MIT
"""The command line of scripts/gen-recipes."""

import argparse
import json
import os
import sys
from pathlib import Path

from composeapps.app import RegistrySource
from composeapps.errors import ComposeAppsError
from composeapps.registry import RegistryClient, parse_endpoints
from recipes import appconf, output
from recipes.render import recipe_path, render
from recipes.resolve import resolve

EXAMPLES = """\
Each file describes one app:

  uri: registry.example.com/factory/web:v3      what to pin: a tag, or a digest
  version: "3.0"                                of the recipe (default "1.0")
  platforms: [linux/amd64, linux/arm64]         default: all that every image has
  name, summary, description, homepage          of the recipe; the name is that of the app
  license: MIT AND BSD-3-Clause                 in place of what the images' labels say

Licences come from the images' label org.opencontainers.image.licenses. When an image has
none, there is a warning and LICENSE is CLOSED until the file names a licence.

Nothing is written unless every app could be read. A recipe that did not change keeps its
time, so BitBake parses it no second time. Another version of a generated app is replaced;
recipes of apps whose file is gone are reported, and removed with --prune. Files that
gen-recipes did not write are never touched.

examples:
  scripts/gen-recipes
        conf/apps/*.yml -> meta-composeapps/recipes-apps
  scripts/gen-recipes --output ../meta-product/recipes-apps ../product/apps
        another directory of app files, another layer
  scripts/gen-recipes --endpoint hub.demo.test=http://127.0.0.1:5000 conf/apps/web.yml
        one app, from a registry that listens elsewhere than its name says
  scripts/gen-recipes --check
        for CI: fail when a tag has moved since the recipes were written

environment:
  COMPOSEAPPS_ENDPOINTS   where registries really listen, "host=url …", as --endpoint
  REGISTRY_AUTH_FILE      logins of registries

exit status:
  0  up to date                         3  an app, image, platform or file is missing
  1  --check found a difference         4  something did not match its digest
  2  wrong usage or a bad app file      5  a registry failed or cannot be reached
                                        7  the file system refused
"""


def parse(argv, top):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = argparse.ArgumentParser(
        prog="gen-recipes", description="Write a pinned BitBake recipe for each app, with every blob's digest.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("apps", nargs="*", type=Path, metavar="FILE|DIR", help="app files (default: conf/apps)")
    parser.add_argument("--output", type=Path, metavar="DIR", default=top / "meta-composeapps" / "recipes-apps",
                        help="where the recipes go (default: meta-composeapps/recipes-apps)")
    parser.add_argument("--endpoint", action="append", default=[], metavar="HOST=URL",
                        help="where a registry listens; may be given again")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when something would change")
    parser.add_argument("--prune", action="store_true", help="remove generated recipes of apps that are gone")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="show no progress, only warnings and errors")
    return parser.parse_args(argv)


def main(argv, top):
    """Run the command; ``top`` is the repository. Returns the exit status."""
    top = Path(top).resolve()
    arguments = parse(argv, top)
    try:
        return _run(arguments, top)
    except ComposeAppsError as err:
        for line in str(err).splitlines():
            print(f"gen-recipes: {line}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("gen-recipes: interrupted", file=sys.stderr)
        return 130


def _run(arguments, top):
    apps, warnings = _resolve_all(arguments, top)
    recipes = {recipe_path(app.conf): render(app, top) for app in apps}
    complete = all(path.is_dir() for path in arguments.apps)
    changes = output.plan(arguments.output, recipes, complete, arguments.prune)
    states = {change.path.relative_to(arguments.output): change.state for change in changes}
    different = any(state in (output.WRITTEN, output.REMOVED) for state in states.values())
    if not arguments.check:
        output.apply(changes)
    if arguments.json:
        _print_json(arguments, apps, states, warnings)
    else:
        _print_text(arguments, apps, states)
    return 1 if arguments.check and different else 0


def _resolve_all(arguments, top):
    confs = appconf.load_all(appconf.find_files(arguments.apps or [_shown(top / "conf" / "apps")]))
    endpoints = parse_endpoints(" ".join([os.environ.get("COMPOSEAPPS_ENDPOINTS", ""), *arguments.endpoint]))
    client = RegistryClient(endpoints=endpoints)
    source, apps, warnings = RegistrySource(client), [], []
    try:
        for conf in confs:
            if not arguments.quiet:
                print(f"{conf.name}: asking {conf.ref.host} for {conf.ref}", file=sys.stderr, flush=True)
            app = resolve(conf, client, source)
            for warning in app.warnings:
                print(f"gen-recipes: warning: {warning}", file=sys.stderr, flush=True)
            warnings += app.warnings
            apps.append(app)
    finally:
        client.close()
    return apps, warnings


def _print_text(arguments, apps, states):
    for app in apps:
        state = states[recipe_path(app.conf)]
        if arguments.quiet and not arguments.check:
            continue
        recipe = _shown(arguments.output / recipe_path(app.conf))
        sizes = ", ".join(f"{platform} {size / 1e6:.1f} MB" for platform, size in app.sizes.items())
        print(f"{app.conf.name}: {_verb(state, arguments.check)} {recipe} ({sizes})")
    for path, state in states.items():
        if state == output.REMOVED:
            print(f"{_verb(state, arguments.check)} {_shown(arguments.output / path)}")
        elif state == output.STALE:
            print(f"gen-recipes: warning: {_shown(arguments.output / path)} is of an app that is gone: "
                  "remove it with --prune", file=sys.stderr)


def _verb(state, check):
    return f"would be {state}:" if check and state != output.UNCHANGED else state


def _print_json(arguments, apps, states, warnings):
    print(json.dumps({
        "output": str(arguments.output),
        "recipes": [{
            "name": app.conf.name, "file": str(app.conf.path), "recipe": str(arguments.output / recipe_path(app.conf)),
            "state": states[recipe_path(app.conf)], "uri": app.uri, "images": list(app.images),
            "license": app.license, "platforms": app.sizes,
        } for app in apps],
        "stale": [str(arguments.output / path) for path, state in states.items() if state == output.STALE],
        "removed": [str(arguments.output / path) for path, state in states.items() if state == output.REMOVED],
        "warnings": warnings, "written": not arguments.check,
    }, indent=2))


def _shown(path):
    """Return a path as people want to read it: relative where it lies below the working directory."""
    path = Path(os.path.abspath(path))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
