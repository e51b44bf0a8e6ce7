# SPDX-License-Identifier: MIT
"""Run part of a build in a process of its own, since BitBake's library keeps its state in globals.

    drive.py BUILD RECIPE... [-- build-image's arguments]

Builds the recipes named, without a base, and prints what was done as JSON; the arguments after
"--" are those of scripts/build-image.
"""

import json
import sys
from pathlib import Path

from fastlane.builder import Build, Options
from fastlane.command import parse
from fastlane.errors import BuildError
from fastlane.progress import Progress

TOP = Path(__file__).resolve().parents[2]


def main():
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    directory, *names = arguments[:split]
    parsed = parse(arguments[split + 1:])
    options = Options(
        top=TOP, build=Path(directory), layers=tuple(parsed.layer), recipe_directories=tuple(parsed.apps_dir),
        settings=tuple(setting.split("=", 1) for setting in parsed.settings))
    try:
        build = Build(options, Progress(quiet=True))
        for name in names:
            build.build_recipe(build.world.recipe(name, "the test"))
    except BuildError as err:
        sys.exit(str(err))
    recipes = {name: build.world.recipe(name, "the test") for name in names}
    print(json.dumps({
        "built": build.built, "unchanged": build.unchanged,
        "D": {name: recipe.d.getVar("D") for name, recipe in recipes.items()},
        "deploy": build.bitbake.d.getVar("DEPLOY_DIR_IMAGE"),
    }))


if __name__ == "__main__":
    main()
