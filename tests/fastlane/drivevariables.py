# SPDX-License-Identifier: MIT
"""Print variables of composeapps-image as JSON, in a process of its own.

    drivevariables.py BUILD NAME... [-- VARIABLE=VALUE...]
"""

import json
import sys
from pathlib import Path

from fastlane.builder import Build, Options
from fastlane.errors import BuildError
from fastlane.progress import Progress


def main():
    build, *rest = sys.argv[1:]
    split = rest.index("--") if "--" in rest else len(rest)
    options = Options(top=Path(__file__).resolve().parents[2], build=Path(build), settings=tuple(
        tuple(each.split("=", 1)) for each in rest[split + 1:]))
    try:
        image = Build(options, Progress(quiet=True)).world.recipe("composeapps-image", "the test")
    except BuildError as err:
        sys.exit(str(err))
    print(json.dumps({name: image.d.getVar(name) for name in rest[:split]}))


if __name__ == "__main__":
    main()
