# SPDX-License-Identifier: MIT
"""The command line of scripts/build-image."""

import json
import os
import sys
from pathlib import Path

from composeapps.cli.parser import Parser
from composeapps.errors import ComposeAppsError
from composeapps.store.store import Store
from fastlane import privilege, release
from fastlane.builder import Options, build
from fastlane.errors import BuildError
from fastlane.progress import Progress
from hub import kept

HELP = {
    "examples": (
        ("scripts/build-image", "an image without apps"),
        ('scripts/build-image --preload "shellhttpd web"',
         "an image that carries two apps, from the recipes that scripts/gen-recipes wrote into build/recipes"),
        ("scripts/build-image --base-only", "only the Debian base, which takes longest and is kept"),
        ("scripts/build-image --set EXTRA_IMAGE_FEATURES= --set COMPOSEAPPS_DATA_SPACE=524288",
         "no open root console, and 512 MiB of free space"),
        ("scripts/build-image --disk --release --sign release.key",
         "the disk as a manufacturer gets it: IMAGE-MACHINE.release.json names the files"),
        ("scripts/build-image --json | jq -r .image", "where the description of the image is"),
    ),
    "details": ("The image is described by build/deploy/IMAGE-MACHINE.json.",),
    "exits": {0: "done", 1: "the build failed", 2: "wrong usage", 130: "interrupted; the previous image is as it was"},
    "environment": ("COMPOSEAPPS_ENDPOINTS", "REGISTRY_AUTH_FILE", "COMPOSEAPPS_MIRROR", "COMPOSEAPPS_BUILD",
                    "SOURCE_DATE_EPOCH"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/build-image", "Build a bootable image from the layer's recipes, on a Debian base.")
    parser.describe(**HELP)
    parser.add_argument("--machine", default="qemux86-64", help="machine to build for (%(default)s)")
    parser.add_argument("--image", default="composeapps-image", help="image recipe (%(default)s)")
    parser.add_argument("--apps-dir", action="append", default=[], metavar="DIR",
                        help="directory of the apps' recipes, as scripts/gen-recipes --output wrote them; may be "
                        "given again (default: build/recipes, where gen-recipes writes)")
    parser.add_argument("--preload", metavar="APPS", help="apps that the image carries, separated by spaces")
    parser.add_argument("--set", action="append", default=[], metavar="VAR=VALUE", dest="settings",
                        help="set a BitBake variable; may be given again")
    parser.add_argument("--layer", action="append", default=[], metavar="DIR",
                        help="a further layer; may be given again")
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror (http://deb.debian.org/debian)")
    parser.add_argument("--disk", action="store_true",
                        help="make the disk with partitions, which boots by EFI, instead of one file system")
    parser.add_argument("--release", action="store_true",
                        help="with --disk: also what a manufacturer gets, the disk compressed, its map, sums and a "
                        "manifest")
    parser.add_argument("--sign", metavar="KEY",
                        help="with --release: sign the manifest with a key of ssh-keygen's")
    parser.add_argument("--base-only", action="store_true", help="make only the Debian base")
    parser.common.add_argument("--json", action="store_true", help="print what was done as JSON on standard output")
    parser.common.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    for setting in arguments.settings:
        if "=" not in setting:
            parser.error(f"--set takes VAR=VALUE, not '{setting}'")
    if arguments.release and (not arguments.disk or arguments.base_only):
        parser.error("--release goes with --disk")
    if arguments.sign and not arguments.release:
        parser.error("--sign goes with --release")
    return arguments


def main(argv, top, directory):
    """Run the command; ``top`` is the repository, ``directory`` the one for products. Returns the exit status."""
    arguments = parse(argv)
    settings = [tuple(setting.split("=", 1)) for setting in arguments.settings]
    if arguments.disk:
        settings.insert(0, ("MACHINE_FEATURES:append", " efi"))
    if arguments.mirror:
        os.environ["COMPOSEAPPS_MIRROR"] = arguments.mirror
    options = Options(
        top=Path(top), build=Path(directory).resolve(), machine=arguments.machine, image=arguments.image,
        recipe_directories=_recipes(arguments, Path(directory)),
        preload=arguments.preload.split() if arguments.preload is not None else None,
        settings=tuple(settings), layers=tuple(os.path.abspath(path) for path in arguments.layer))
    progress = Progress(quiet=arguments.quiet)

    def make_release(result):
        with progress.step("making the release"):
            result["release"] = str(release.make(result["image"], _layers(options), arguments.sign, sbom(result)))

    try:
        privilege.become_root([sys.executable, *sys.argv])
        result = build(options, progress, arguments.base_only, make_release if arguments.release else lambda _: None)
    except (BuildError, ComposeAppsError) as err:
        # What is wrong with a recipe is not the registry's doing.
        unreachable = "cannot be reached" in str(err)
        for line in filter(None, [str(err), kept.hint(directory, str(err)) if unreachable else None]):
            print(f"build-image: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build-image: interrupted; the previous image is as it was", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        progress.summary("all", result["seconds"])
        for what in ("image", "release"):
            if what in result:
                print(result[what])
    return 0


def sbom(result):
    """Write down beside an image what is in its apps' images.

    Arguments:
        result: what ``builder.build`` returns.

    Returns a list of the files, an empty one for an image without apps. Raises CorruptError, StorageError.
    """
    from sbom import command

    if not result["stores"]:
        return []
    path = Path(result["image"]).with_suffix(".spdx.json")
    command.write(path, [app for store in result["stores"] for app in command.collect(Store(store))])
    return [path]


def _layers(options):
    """Return {name: directory} of the layers of a build."""
    found = [options.fastlane, Path(options.top, "meta-composeapps"), *map(Path, options.layers)]
    return {path.resolve().name: path for path in found}


def _recipes(arguments, directory):
    """Return the directories of recipes: those of the command line, else the one that gen-recipes writes to."""
    if arguments.apps_dir:
        return tuple(os.path.abspath(path) for path in arguments.apps_dir)
    default = directory.resolve() / "recipes"
    return (str(default),) if default.is_dir() else ()
