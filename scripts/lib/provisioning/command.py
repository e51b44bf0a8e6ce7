# SPDX-License-Identifier: MIT
"""The command line of scripts/provision."""

import hashlib
import json
import os
import stat
import sys
from pathlib import Path

from composeapps import durable
from composeapps.cli.parser import Parser
from composeapps.disk import area
from composeapps.errors import ComposeAppsError, UsageError
from provisioning import fleet, given, target

HELP = {
    "examples": (
        ("scripts/provision shop.wic --device shop-0001 --cert 1.pem --key 1.key --ca ca.pem --output shop-0001.wic",
         "an image of one device's own"),
        ("scripts/provision --device shop-0001 --serial A1B2C3 --new-key --to /dev/sdX",
         "a disk that was flashed, whose device makes its key by itself at its first boot"),
        ("scripts/provision shop.wic --csv devices.csv --output made", "an image for each line of a list"),
        ("scripts/provision shop.wic --csv devices.csv --area-only --output made",
         "only what differs, 64 KiB a device, to be written at the offset that the report tells"),
        ("scripts/provision shop.wic --show", "what an image holds: nothing, or whose it is"),
    ),
    "details": (
        "Identity and settings go into the partition 'provision'; nothing else of the image is touched. At its next "
        "boot the device takes them over, into the directory that its setting identity_dir names, and wipes all but "
        "the serial number from the partition. Until then whoever has the disk or the file can read a key that is in "
        "it: files that are made here are for their owner only, and --new-key gives away no key at all.",
        {"device, serial, cert, key, ca": "columns of a list (CSV with these names in its first line); files are "
                                          "relative to the list",
         "setting:NAME": "one more column for each setting"},
        "A list is gone on with after a device that fails; what is there and right is left as it is.",
    ),
    "exits": {0: "done", 1: "a device of the list failed; the report says which", 2: None,
              3: "there is no provisioning area", 4: "what is in it is of another release", 7: None, 130: None},
    "environment": ("COMPOSEAPPS_BUILD",),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/provision", "Give devices that are made from one image an identity and settings of their "
                    "own.")
    parser.describe(**HELP)
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="the image, a .wic file; not with --to")
    parser.add_argument("--device", metavar="ID", default="", help="the device's name in its fleet")
    parser.add_argument("--serial", metavar="N", default="", help="its serial number, which outlives factory resets")
    parser.add_argument("--cert", metavar="FILE", help="its certificate (PEM); goes with --key")
    parser.add_argument("--key", metavar="FILE", help="its private key (PEM, without a pass phrase)")
    parser.add_argument("--ca", metavar="FILE", help="the authorities that it trusts (PEM)")
    parser.add_argument("--new-key", action="store_true",
                        help="the device makes its key and hands out a certificate signing request")
    parser.add_argument("--any-subject", action="store_true", help="take a certificate that is in another name")
    parser.add_argument("--setting", metavar="NAME=VALUE", action="append", default=[],
                        help="a setting of its agent; can be repeated")
    parser.add_argument("--csv", metavar="FILE", help="a list of devices in place of one")
    parser.add_argument("--output", metavar="PATH",
                        help="the file to make, with --csv the directory; the image stays as it is")
    parser.add_argument("--area-only", action="store_true", help="with --output: only the area, not an image with it")
    parser.add_argument("--to", metavar="DEVICE", help="a disk that was flashed, in place of an image")
    parser.add_argument("--in-place", action="store_true", help="make the image itself that of the device")
    parser.add_argument("--replace", action="store_true",
                        help="with --to and --in-place: also one that is another device's")
    parser.add_argument("--report", metavar="FILE",
                        help="with --csv: the report, .json or .csv (default: report.csv in the directory)")
    parser.add_argument("--show", action="store_true", help="change nothing: tell what is in the area, but for keys")
    parser.common.add_argument("--json", action="store_true", help="print what was done as JSON on standard output")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    found = parser.parse_args(argv)
    places = [bool(found.output), bool(found.to), found.in_place]
    if bool(found.image) == bool(found.to):
        parser.error("give either an image or --to DEVICE")
    if found.show:
        return found
    if sum(places) != 1:
        parser.error("say where the result goes, by one of --output, --to and --in-place")
    if found.csv and (found.device or found.serial or found.key or found.cert):
        parser.error("--csv has the devices' names, serial numbers, keys and certificates")
    if found.csv and not found.output:
        parser.error("--csv goes with --output DIRECTORY")
    if found.area_only and not found.output:
        parser.error("--area-only goes with --output")
    if found.report and not found.csv:
        parser.error("--report goes with --csv")
    return found


def main(argv):
    """Run the command; return the exit status."""
    arguments = parse(argv)
    try:
        if arguments.show:
            return _show(arguments)
        return _list(arguments) if arguments.csv else _single(arguments)
    except ComposeAppsError as err:
        print(f"provision: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("provision: interrupted; what was finished is there", file=sys.stderr)
        return 130


def _common(arguments):
    return {"authority": arguments.ca, "words": arguments.setting, "new_key": arguments.new_key,
            "any_subject": arguments.any_subject}


def _list(arguments):
    directory = Path(arguments.output)
    report = arguments.report or directory / "report.csv"
    results = fleet.provision(arguments.image, arguments.csv, directory, _common(arguments), arguments.area_only,
                              report, lambda text: print(f"provision: {text}", file=sys.stderr))
    counts = {kind: sum(each["result"] == kind for each in results) for kind in ("made", "there", "failed")}
    if arguments.json:
        print(json.dumps({**counts, "report": str(report), "devices": results}, indent=2))
    else:
        print(f"{len(results)} devices: {', '.join(f'{count} {kind}' for kind, count in counts.items())}; {report}")
    return 1 if counts["failed"] else 0


def _single(arguments):
    path = arguments.to or arguments.image
    place = target.find(path)
    if arguments.to and not stat.S_ISBLK(os.stat(path).st_mode):
        raise UsageError(f"{path} is no disk: give an image as IMAGE")
    device = given.gather(arguments.device, arguments.serial, arguments.cert, arguments.key, **_common(arguments))
    data = area.pack(device)
    shared = None
    if arguments.output:
        if os.path.exists(arguments.output) and os.path.samefile(arguments.output, path):
            raise UsageError(f"{path} would be overwritten by its own copy: give another name, or --in-place")
        fleet.refuse_given(path, place)
        if arguments.area_only:
            target.usable(arguments.output)
            with durable.storage_errors(f"writing {arguments.output}"):
                durable.write_file(arguments.output, data, mode=0o600)
        else:
            shared = target.copy(path, arguments.output, place, data)
    else:
        target.write(path, place, data, lambda: _refuse_others(arguments, path, place, device))
    result = {"device": device.device, "serial": device.serial, "file": arguments.output or path,
              "offset": place.offset, "sha256": hashlib.sha256(data).hexdigest(), "result": "made"}
    if shared is not None:
        result["shared"] = shared
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{result['file']} is that of {device.device or device.serial or 'a device without a name'}")
    return 0


def _refuse_others(arguments, path, place, device):
    """Refuse to overwrite what another device was given and has not taken over yet. Raises UsageError, CorruptError."""
    if arguments.replace:
        return
    there = target.held(path, place)
    if there is not None and there.waits and there.device != device.device:
        raise UsageError(f"{path} is that of the device {there.device or there.serial}: give --replace where that is "
                         "to be no more")


def _show(arguments):
    path = arguments.to or arguments.image
    place = target.find(path)
    there = target.held(path, place)
    told = None if there is None else {
        "device": there.device, "serial": there.serial, "settings": there.settings, "key": bool(there.key),
        "certificate": bool(there.certificate), "authority": bool(there.authority), "new_key": there.new_key}
    if arguments.json:
        print(json.dumps({"file": path, "offset": place.offset, "size": area.SIZE, "holds": told}, indent=2))
    elif told is None:
        print(f"{path} is no single device's")
    else:
        has = [what for what in ("key", "certificate", "authority", "settings", "new_key") if told[what]]
        print(f"{path} is that of {there.device or '-'}, serial number {there.serial or '-'}; with: "
              f"{', '.join(has).replace('new_key', 'a key to be made') or 'nothing else'}")
    return 0
