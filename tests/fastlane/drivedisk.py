# SPDX-License-Identifier: MIT
"""Make the disk of composeapps-image out of a given tree, in a process of its own.

    drivedisk.py BUILD BASE ROOT TARGET [VARIABLE=VALUE]...

BASE is a directory with a base's kernel, initramfs and systemd-boot. Prints the expanded kickstart file and the
partitions as JSON.
"""

import json
import sys
from pathlib import Path

from fastlane import disk
from fastlane.base import Base
from fastlane.builder import Build, Options
from fastlane.errors import BuildError
from fastlane.progress import Progress


def main():
    build, base, root, target, *settings = sys.argv[1:]
    options = Options(top=Path(__file__).resolve().parents[2], build=Path(build), settings=(
        ("MACHINE_FEATURES:append", " efi"), *(tuple(each.split("=", 1)) for each in settings)))
    try:
        image = Build(options, Progress(quiet=True)).world.recipe("composeapps-image", "the test")
        image.d.setVar("IMAGE_ROOTFS", root)
        image.d.setVar("BB_UNIHASH", "a build")
        table = disk.partitioned(image.d, Base("test", Path(base)), target)
    except BuildError as err:
        sys.exit(str(err))
    print(json.dumps({"wks": image.d.getVar("_WKS_TEMPLATE"), "partitions": table}))


if __name__ == "__main__":
    main()
