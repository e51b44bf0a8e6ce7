# SPDX-License-Identifier: MIT
"""The partitions of a disk as a kickstart file of wic describes them, read for the fast lane.

Of wic's language (Yocto Project Reference Manual, "OpenEmbedded Kickstart (.wks) Reference") it takes what a file of
this layer uses, and refuses the rest: a disk that only one of the two lanes understands would be two disks.
"""

import argparse
import dataclasses
import re
import shlex

from fastlane.errors import BuildError

# What wic takes when a file says nothing, in KiB.
EXTRA_SPACE = 10 * 1024
OVERHEAD = 1.3
_UNITS = {"": 1024, "K": 1, "M": 1024, "G": 1024 * 1024}


@dataclasses.dataclass(frozen=True)
class Partition:
    """One line "part". Sizes are KiB; what a line does not say is "", 0, () or False."""

    mountpoint: str
    line: int
    source: str = ""
    sourceparams: str = ""
    fstype: str = "vfat"
    label: str = ""
    part_name: str = ""
    part_type: str = ""
    uuid: str = ""
    fsuuid: str = ""
    mkfs_extraopts: str = ""
    align: int = 0
    size: int = 0
    extra_space: int = EXTRA_SPACE
    overhead: float = OVERHEAD
    active: bool = False
    exclude: tuple = ()
    directory: str = ""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A whole file: ``table`` is "gpt" or "msdos", ``timeout`` the loader's in seconds, ``append`` kernel arguments."""

    partitions: tuple
    table: str = "msdos"
    disk_id: str = ""
    timeout: int = 5
    append: str = ""


class _Once(argparse.Action):
    """Several values, given once: of a repeated option wic takes only the last."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest):
            raise ValueError(f"{option_string} is given twice, and wic takes only the last: give all values to one")
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(message)


def _size(text):
    found = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is no size")
    return int(found[1]) * _UNITS[found[2]]


def _parsers():
    part = _Parser(prog="part", add_help=False, allow_abbrev=False)
    part.add_argument("mountpoint", nargs="?", default="")
    for name in ("source", "sourceparams", "label", "part-name", "part-type", "uuid", "fsuuid", "mkfs-extraopts"):
        part.add_argument(f"--{name}", default="")
    part.add_argument("--fstype", default="vfat", choices=("vfat", "ext4", "erofs"))
    part.add_argument("--align", type=int, default=0)
    part.add_argument("--size", "--fixed-size", type=_size, default=0)
    part.add_argument("--extra-filesystem-space", "--extra-space", type=_size, default=EXTRA_SPACE, dest="extra_space")
    part.add_argument("--overhead-factor", type=float, default=OVERHEAD, dest="overhead")
    part.add_argument("--active", action="store_true")
    part.add_argument("--exclude-path", action=_Once, nargs="+", default=[], dest="exclude")
    part.add_argument("--change-directory", default="", dest="directory")
    # Who mounts the partitions is the image's own fstab.
    part.add_argument("--no-fstab-update", action="store_true", required=True)
    loader = _Parser(prog="bootloader", add_help=False, allow_abbrev=False)
    loader.add_argument("--ptable", default="msdos", choices=("msdos", "gpt"), dest="table")
    loader.add_argument("--diskid", default="", dest="disk_id")
    loader.add_argument("--timeout", type=int, default=5)
    loader.add_argument("--append", default="")
    return {"part": part, "bootloader": loader}


def read(text, name):
    """Return the Layout that a kickstart file describes.

    Arguments:
        text: the file, its variables expanded.
        name: its name, for messages.

    Raises BuildError that names the line which the fast lane does not understand.
    """
    parsers, partitions, loader = _parsers(), [], {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            command, *arguments = shlex.split(line)
            if command not in parsers:
                raise ValueError(f"'{command}' is neither part nor bootloader")
            found = vars(parsers[command].parse_args(arguments))
            if command == "part":
                del found["no_fstab_update"]
                partitions.append(Partition(line=number, **{**found, "exclude": tuple(found["exclude"])}))
            else:
                # As wic has it, by which no waiting at all is the default of five seconds.
                loader = {**found, "timeout": found["timeout"] or 5}
        except ValueError as err:
            raise BuildError(f"{name}:{number}: {err}; the fast lane does not take this line") from None
    return Layout(tuple(partitions), **loader)
