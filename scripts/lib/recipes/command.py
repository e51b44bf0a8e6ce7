# SPDX-License-Identifier: MIT
"""The command line of scripts/gen-recipes."""

import json
import os
import re
import sys
from pathlib import Path

import hostsetup
from composeapps.cli import output as command_options
from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError, NotFoundError, UsageError
from hub import kept
from recipes import kinds, output, yamlconf

HELP = {
    "examples": (
        ("scripts/gen-recipes --app hub.demo.test/factory/shop:v1",
         "an app without a file -> build/recipes, where scripts/build-image looks"),
        ("scripts/gen-recipes --target https://factory.example.com/repo/shop-3 --root 1.root.json",
         "the apps that a factory signed, so that the first image has what devices would take"),
        ("scripts/gen-recipes", "conf/apps/*.yml, the demo's apps -> build/recipes"),
        ("scripts/gen-recipes --output ../meta-product/recipes-apps ../product/apps",
         "another directory of app files, another layer"),
        ("scripts/gen-recipes --endpoint hub.demo.test=http://127.0.0.1:5000 conf/apps/web.yml",
         "one app, from a registry that listens elsewhere than its name says"),
        ("scripts/gen-recipes --check", "for CI: fail when a tag has moved since the recipes were written"),
        ("scripts/gen-recipes --python", "conf/python/*.yml -> meta-composeapps/recipes-python"),
        ("scripts/gen-recipes --python --index https://pypi.example.com/simple --check",
         "for CI: fail when the recipes are not those of conf/python, asking a mirror of PyPI"),
    ),
    "details": (
        "Each file describes one app:",
        {
            "uri": "what to pin, by a tag or a digest: registry.example.com/factory/web:v3",
            "version": 'of the recipe, "3.0" for example (default: "1.0")',
            "platforms": "[linux/amd64, linux/arm64] for example (default: all that every image has)",
            "name, summary, description, homepage": "of the recipe; the name is that of the app",
            "license": "MIT AND BSD-3-Clause for example, in place of what the images' labels say",
        },
        "Licences come from the images' label org.opencontainers.image.licenses. When an image has none, there is a "
        "warning and LICENSE is CLOSED until the file names a licence.",
        "With --python, each file describes one package on PyPI:",
        {
            "name": "on PyPI",
            "version": "the one to pin",
            "recipe": "its name (default: python3- and the package's)",
            "summary, description, homepage, license": "in place of what the package says",
            "license-files": "the same, paths in its source archive",
            "extras": "optional parts that the device needs",
            "requires": "in place of the package's own requirements",
            "rdepends": "packages of the image needed besides",
            "modules": "what it installs, where that is not plain to see",
            "cve-products": "what CVE databases call it",
            "unused": "what no device runs: it is not installed",
        },
        "Of the package's source archive everything else is read: licence texts, what builds it, its requirements as "
        "they apply on the target (Linux, Python 3.14), and which parts of the split standard library it imports. The "
        "archive is checked against the index's sha256 and not unpacked.",
        "Nothing is written unless every file could be worked out. A recipe that did not change keeps its time, so "
        "BitBake parses it no second time. Another version of a generated recipe is replaced; recipes whose file is "
        "gone are reported, and removed with --prune. Files that gen-recipes did not write are never touched.",
    ),
    "exits": {0: "up to date", 1: "--check found a difference", 2: "wrong usage or a bad file",
              3: "an app, image, platform, package or file is missing, or says too little to make a recipe",
              4: "something did not match its digest or format",
              5: "a registry or index failed or cannot be reached", 7: None, 130: None},
    "environment": ("registries", "PIP_INDEX_URL", "COMPOSEAPPS_BUILD"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/gen-recipes", "Write a pinned BitBake recipe for each app, with every blob's digest, "
                    "or for each Python package.")
    parser.describe(**HELP)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE|DIR",
                        help="files of apps or packages (default: conf/apps, or conf/python with --python)")
    parser.add_argument("--python", dest="kind", action="store_const", const=kinds.PythonPackages,
                        default=kinds.Apps, help="the files describe Python packages, not apps")
    parser.add_argument("--app", action="append", default=[], metavar="[NAME=]REF",
                        help="a published app, REGISTRY/FACTORY/NAME:TAG, that needs no file: NAME is its recipe's, "
                        "by default the app's; may be given again")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="where the recipes go, made when missing (default: build/recipes, or "
                        "meta-composeapps/recipes-python with --python)")
    parser.add_argument("--target", metavar="REPO/NAME-VERSION",
                        help="all apps of a signed Target, in the versions that it names: REPO is the repository's "
                        "address or directory; takes --root")
    parser.add_argument("--root", type=Path, metavar="FILE",
                        help="with --target: the root that its signatures are checked by, as 1.root.json")
    command_options.add_endpoint(parser)
    parser.add_argument("--index", metavar="URL", help="the index of Python packages (default: PyPI)")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when something would change")
    parser.add_argument("--prune", action="store_true", help="remove generated recipes whose file is gone")
    parser.common.add_argument("--json", action="store_true", help="print what was done as JSON on standard output")
    parser.common.add_argument("--quiet", action="store_true", help="show no progress, only warnings and errors")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if (arguments.target is None) != (arguments.root is None):
        parser.error("--target and --root go together")
    return arguments


def main(argv, top):
    """Run the command; ``top`` is the repository. Returns the exit status."""
    try:
        return _run(parse(argv), Path(top).resolve())
    except ComposeAppsError as err:
        for line in filter(None, [*str(err).splitlines(), kept.hint(hostsetup.BUILD, str(err))]):
            print(f"gen-recipes: {line}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("gen-recipes: interrupted", file=sys.stderr)
        return 130


def _run(arguments, top):
    kind = arguments.kind()
    directory = arguments.output or kind.output(top)
    entries, warnings = _gather(kind, arguments, top)
    # With --app the rest of the directory is others', unless it is to go.
    complete = arguments.prune if arguments.app or arguments.target else all(path.is_dir() for path in arguments.files)
    changes = output.plan(
        directory, {entry.path: entry.text for entry in entries}, kind.pattern, complete, arguments.prune)
    states = {change.path.relative_to(directory): change.state for change in changes}
    before = {change.path.relative_to(directory): _uri(change.before) for change in changes}
    different = any(state in (output.WRITTEN, output.REMOVED) for state in states.values())
    if not arguments.check:
        output.apply(changes)
    if arguments.json:
        _print_json(arguments, directory, entries, states, before, warnings)
    else:
        _print_text(kind, arguments, directory, entries, states, before)
    return 1 if arguments.check and different else 0


def _gather(kind, arguments, top):
    def say(text):
        if not arguments.quiet:
            print(text, file=sys.stderr, flush=True)

    named = [*arguments.app, *_signed(arguments)]
    default = [] if named else [_shown(top.joinpath(*kind.inputs))]
    paths = yamlconf.find_files(arguments.files or default, kind.what)
    entries, warnings = [], []
    for entry, found in kind.entries(kind.load(paths, named), arguments, top, say):
        for warning in found:
            print(f"gen-recipes: warning: {warning}", file=sys.stderr, flush=True)
        entries.append(entry)
        warnings += found
    return entries, warnings


def _signed(arguments):
    """Return (reference, Target) of each app of the Target that is asked for."""
    if not arguments.target:
        return []
    # What verifies takes a second to be imported.
    from composeapps.signing import client

    repository, slash, name = arguments.target.rpartition("/")
    if not slash or not repository or not name:
        raise UsageError(f"--target {ascii(arguments.target)} is not REPO/NAME-VERSION: /srv/tuf/shop-3 for example")
    target = client.find(repository, name, arguments.root, hostsetup.BUILD / "tuf")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", target.name):
        raise UsageError(f"Target {ascii(name)} cannot be named in a recipe: letters, digits, '.', '_', '+' and '-' "
                         "can be")
    if not target.apps:
        raise NotFoundError(f"Target {name} has no app")
    return [(uri, target.name, target.version) for _app, uri in sorted(target.apps.items())]


def _uri(recipe):
    """Return the app's reference that a recipe (bytes) has, "" for none."""
    found = re.search(rb'^COMPOSEAPP_URI = "([^"]*)"$', recipe or b"", re.MULTILINE)
    return found[1].decode(errors="replace") if found else ""


def _print_text(kind, arguments, directory, entries, states, before):
    for entry in entries:
        if arguments.quiet and not arguments.check:
            continue
        recipe = _shown(directory / entry.path)
        print(f"{entry.name}: {_verb(states[entry.path], arguments.check)} {recipe} ({entry.detail})")
        old, new = before[entry.path], entry.facts.get("uri", "")
        if old and new and old != new:
            print(f"  {old.rpartition('@')[2]} becomes {new.rpartition('@')[2]}")
        for danger in entry.facts.get("dangers", ()):
            print(f"  {danger}")
    for path, state in states.items():
        if state == output.REMOVED:
            print(f"{_verb(state, arguments.check)} {_shown(directory / path)}")
        elif state == output.STALE:
            print(f"gen-recipes: warning: {_shown(directory / path)} is of {kind.a_what} that is gone: "
                  "remove it with --prune", file=sys.stderr)


def _verb(state, check):
    return f"would be {state}:" if check and state != output.UNCHANGED else state


def _print_json(arguments, directory, entries, states, before, warnings):
    print(json.dumps({
        "output": str(directory),
        "recipes": [{
            "name": entry.name, "file": str(entry.file), "recipe": str(directory / entry.path),
            "state": states[entry.path], "before": before[entry.path] or None, **entry.facts,
        } for entry in entries],
        "stale": [str(directory / path) for path, state in states.items() if state == output.STALE],
        "removed": [str(directory / path) for path, state in states.items() if state == output.REMOVED],
        "warnings": warnings, "written": not arguments.check,
    }, indent=2))


def _shown(path):
    """Return a path as people want to read it: relative where it lies below the working directory."""
    path = Path(os.path.abspath(path))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
