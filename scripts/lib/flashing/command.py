# SPDX-License-Identifier: MIT
"""The command line of scripts/flash."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time

from composeapps import beneath
from composeapps.cli.parser import Parser
from composeapps.disk import area
from composeapps.errors import ComposeAppsError, CorruptError, StorageError, UsageError
from fastlane import filesystems, release
from fastlane.errors import BuildError
from flashing import blockmap, disk
from provisioning import target

HELP = {
    "examples": (
        ("scripts/flash shop.wic.zst /dev/sdX", "ask first, then overwrite the disk with the image"),
        ("scripts/flash shop.wic /dev/sdX --yes --area made/shop-0001.area",
         "without a question, and with a device's identity, as scripts/provision --area-only made it"),
        ("scripts/flash shop.wic.zst /dev/sdX --yes --json", "for a fixture: bytes, seconds, MB a second"),
    ),
    "details": (
        "bmaptool writes the used blocks by the map beside the image (IMAGE.bmap), having compared their sums with "
        "those of the map; then all of them are read back from the disk and compared once more. For an image that is "
        "not compressed a map that is missing is made. A disk that is in use is refused: one of which something is "
        "mounted, is swap, or belongs to a volume or an array; so are partitions and disks that are too small.",
    ),
    "exits": {0: "the disk has the image, read back", 1: "bmaptool failed",
              2: "wrong usage, or a disk that may not be overwritten",
              3: "with --area: the image, which is written, has no provisioning area",
              4: "what was read back is not what was written, or image, map or manifest are not what they have to be",
              7: None, 130: "interrupted; the disk is not whole"},
    "environment": ("COMPOSEAPPS_BUILD",),
}


# bmaptool's errors are coloured, whoever reads them.
_COLOURS = re.compile("\x1b\\[[0-9;]*m")


class FlashError(ComposeAppsError):
    """bmaptool failed."""


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/flash", "Write an image to a disk, and see that it is there.")
    parser.describe(**HELP)
    parser.add_argument("image", metavar="IMAGE", help="the image, .wic or .wic.zst")
    parser.add_argument("device", metavar="DEVICE", help="the disk, which is overwritten")
    parser.add_argument("--bmap", metavar="FILE", help="the map of the image's blocks (default: the one beside it)")
    parser.add_argument("--release", metavar="FILE", help="the manifest that image and map have to be those of")
    parser.add_argument("--signers", metavar="FILE",
                        help="with --release: the file of those who may sign it (ssh-keygen(1), ALLOWED SIGNERS)")
    parser.add_argument("--signer", metavar="NAME", help="with --signers: who has to have signed it")
    parser.add_argument("--area", metavar="FILE", help="a device's provisioning area, written behind the image")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.common.add_argument("--json", action="store_true", help="print what was done as JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    found = parser.parse_args(argv)
    if bool(found.signers) != bool(found.signer) or found.signers and not found.release:
        parser.error("--signers, --signer and --release go together")
    return found


def main(argv):
    """Run the command; return the exit status."""
    arguments = parse(argv)
    try:
        return _flash(arguments)
    except ComposeAppsError as err:
        print(f"flash: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("flash: interrupted; the disk is not whole", file=sys.stderr)
        return 130


def _flash(arguments):
    if not os.path.isfile(arguments.image):
        raise UsageError(f"{arguments.image} is no file: give the image")
    size = disk.look(arguments.device)
    given = _area(arguments.area) if arguments.area else None
    with tempfile.TemporaryDirectory() as directory:
        path = arguments.bmap or blockmap.beside(arguments.image) or _make_map(arguments.image, directory)
        if arguments.release:
            _check_release(arguments, path)
        found = blockmap.read(path)
        if found.size > size:
            raise UsageError(f"{arguments.device} has {size} bytes, and the image needs {found.size}: take a larger "
                             "disk")
        if not arguments.yes:
            _confirm(arguments.device, size)
        started = time.monotonic()
        _copy(arguments.image, path, arguments.device)
        disk.forget_cache(arguments.device)
        written = time.monotonic()
        blockmap.verify(found, arguments.device)
        verified = time.monotonic()
    if given is not None:
        target.write(arguments.device, target.find(arguments.device), area.pack(given))
    result = {
        "image": arguments.image, "device": arguments.device, "size": found.size, "written": found.used,
        "seconds": round(written - started, 2), "mb_per_second": _speed(found.used, written - started),
        "verified": True, "verify_seconds": round(verified - written, 2),
        "verify_mb_per_second": _speed(found.used, verified - written),
        "provisioned": given.device or given.serial if given is not None else None,
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{arguments.device}: {found.used / 1e6:.0f} MB of {found.size / 1e6:.0f} MB written in "
              f"{result['seconds']} s ({result['mb_per_second']} MB/s), read back in {result['verify_seconds']} s "
              f"({result['verify_mb_per_second']} MB/s): the same")
        if given is not None:
            print(f"{arguments.device} is that of {result['provisioned'] or 'a device without a name'}")
    return 0


def _check_release(arguments, path):
    try:
        if arguments.signers:
            release.verify(arguments.release, arguments.signers, arguments.signer)
        release.check(arguments.release, (arguments.image, path))
    except BuildError as err:
        raise CorruptError(f"{err}; nothing is written") from None


def _speed(count, seconds):
    return round(count / 1e6 / max(seconds, 0.001), 1)


def _area(path):
    try:
        with beneath.open_regular(path) as stream:
            data = stream.read(area.SIZE + 1)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None
    given = area.parse(data)
    if given is None or len(data) != area.SIZE:
        raise CorruptError(f"{path} is no provisioning area: scripts/provision --area-only makes one")
    return given


def _make_map(image, directory):
    with open(image, "rb") as stream:
        begin = stream.read(4)
    if begin in (b"\x28\xb5\x2f\xfd", b"\xfd7zX", b"\x04\x22\x4d\x18") or begin[:2] in (b"\x1f\x8b", b"BZ"):
        raise UsageError(f"there is no map of {image}, which is compressed: bring the .bmap file that was built with "
                         "it, beside it or by --bmap")
    path = os.path.join(directory, "image.bmap")
    try:
        filesystems.run("bmaptool", "create", "-o", path, image)
    except BuildError as err:
        raise FlashError(f"no map of {image} can be made: {err}") from None
    return path


def _copy(image, path, device):
    try:
        done = subprocess.run(["bmaptool", "--quiet", "copy", "--bmap", path, image, device], check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              errors="replace", env={**os.environ, "LC_ALL": "C"})
    except OSError as err:
        raise StorageError(f"bmaptool cannot be run: {err.strerror}: install Debian's package bmap-tools") from None
    if done.returncode:
        said = _COLOURS.sub("", done.stderr)
        lines = [line.partition("ERROR: ")[2] for line in said.splitlines() if "ERROR: " in line]
        reason = (lines or said.strip().splitlines() or ["it gave no reason"])[-1]
        raise FlashError(f"the image was not written, or not all of it: bmaptool: {reason}")


def _confirm(device, size):
    if not (sys.stdin.isatty() and os.isatty(2)):
        raise UsageError(f"{device} would be overwritten: give --yes where nobody can be asked")
    print(f"This overwrites {device} ({size / 1e9:.1f} GB). Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing is written")
