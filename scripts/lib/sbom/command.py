# SPDX-License-Identifier: MIT
"""The command line of scripts/sbom."""

import json
import os
import sys

from composeapps import durable
from composeapps.app import layers, tree
from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError, NotFoundError
from composeapps.store.store import Store
from sbom import gate, packages, spdx

HELP = {
    "examples": (
        ("scripts/sbom STORE --output shop.spdx.json", "what is in the images of a restorable store"),
        ("scripts/sbom STORE --json", "the packages with versions and licences, for other programs"),
        ("scripts/sbom --gate report.json --fail-on high", "hold a release back by a report of grype"),
    ),
    "details": (
        "STORE is the directory of a restorable store, as an image or the build of an app has it. Of each image the "
        "databases of dpkg, apk and rpm in its layers are read; an image without any is listed as such. Programs that "
        "were copied into an image are in no database.",
        "A gate is for after a scan of the SBOM: 'grype sbom:shop.spdx.json -o json > report.json'. A severity that is "
        "not known counts as the worst.",
    ),
    "exits": {0: "done; of --gate: nothing counts", 1: "of --gate: something counts", 2: None,
              3: "there is no app, a blob is missing, or rpm is", 4: None, 7: None, 130: None},
    "environment": ("COMPOSEAPPS_BUILD", "SOURCE_DATE_EPOCH"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/sbom", "List what is in the images of apps, and hold a release back by what is known of "
                    "it.")
    parser.describe(**HELP)
    parser.add_argument("store", nargs="?", metavar="STORE", help="the directory of a restorable store")
    parser.add_argument("--output", metavar="FILE", help="write the SBOM (SPDX 2.3, JSON)")
    parser.add_argument("--gate", metavar="REPORT", help="a report of grype, in place of a store")
    parser.add_argument("--fail-on", choices=gate.SEVERITIES, default="high",
                        help="with --gate: the severity that counts, and all above (%(default)s)")
    parser.add_argument("--fixed-only", action="store_true", help="with --gate: only what a newer version mends counts")
    parser.add_argument("--allow", metavar="FILE", help="with --gate: identifiers that do not count, one a line")
    parser.common.add_argument("--json", action="store_true", help="print JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    found = parser.parse_args(argv)
    if bool(found.store) == bool(found.gate):
        parser.error("give either STORE or --gate REPORT")
    if found.gate and found.output or found.store and (found.allow or found.fixed_only):
        parser.error("--output goes with STORE, --allow and --fixed-only with --gate")
    return found


def main(argv):
    """Run the command; return the exit status."""
    arguments = parse(argv)
    try:
        return _gate(arguments) if arguments.gate else _list(arguments)
    except ComposeAppsError as err:
        print(f"sbom: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("sbom: interrupted", file=sys.stderr)
        return 130


def collect(store):
    """Return [(pinned reference of an app, {pinned reference of an image: packages.Found})] of a Store.

    Raises NotFoundError for a store without apps, CorruptError.
    """
    found, known = [], {}
    for ref in store.list_apps():
        app, images = tree.load_app(tree.StoreSource(store), ref, tree.PRESENT), {}
        for image in app.images.values():
            for variant in image.variants:
                if variant.document.digest not in known:
                    blobs = [(each.digest, each.size) for each in variant.document.layers]
                    known[variant.document.digest] = packages.read(
                        layers.unpacked(store.chunks(digest, size), digest) for digest, size in blobs)
                images[f"{image.ref.repository}@{variant.document.digest}"] = known[variant.document.digest]
        found.append((str(ref), images))
    if not found:
        raise NotFoundError(f"there is no app in the store {store.root}")
    return found


def write(path, apps):
    """Write the SBOM of what ``collect`` returns, SPDX 2.3. Raises StorageError."""
    value = spdx.document(os.path.basename(path), apps, int(os.environ.get("SOURCE_DATE_EPOCH", 0)))
    with durable.storage_errors(f"writing {path}"):
        durable.write_file(path, json.dumps(value, indent=1).encode() + b"\n")


def _list(arguments):
    apps = collect(Store(arguments.store))
    if arguments.output:
        write(arguments.output, apps)
    if arguments.json:
        print(json.dumps({app: {image: {**found._asdict(), "packages": [each._asdict() for each in found.packages]}
                                for image, found in images.items()} for app, images in apps}, indent=2))
        return 0
    for app, images in apps:
        print(app)
        for image, found in images.items():
            print(f"  {image}: {len(found.packages)} packages of {', '.join(found.databases) or 'no database'}")
    return 0


def _gate(arguments):
    found = gate.problems(arguments.gate, arguments.fail_on, gate.allowed(arguments.allow) if arguments.allow else (),
                          arguments.fixed_only)
    if arguments.json:
        print(json.dumps([dict(zip(("id", "severity", "package", "version"), each, strict=True)) for each in found],
                         indent=2))
    else:
        for identifier, severity, package, version in found:
            print(f"{severity}: {identifier} in {package} {version}")
    return 1 if found else 0
