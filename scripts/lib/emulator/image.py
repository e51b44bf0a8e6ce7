# SPDX-License-Identifier: MIT
"""What to boot: the description of a built image, its disk's overlay, and further drives."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import hostsetup

from .errors import EmulatorError


@dataclass(frozen=True)
class ImageDescription:
    """A bootable image; all paths absolute. ``disk`` and ``initrd`` may be None.

    ``efi`` tells whether the disk boots by EFI firmware, too.
    """

    kernel: Path
    cmdline: str
    disk: Path | None = None
    initrd: Path | None = None
    machine: str = "qemux86-64"
    apps: dict = field(default_factory=dict)
    efi: bool = False

    @classmethod
    def load(cls, path):
        """Read the JSON file that scripts/build-image writes beside an image.

        Its keys: machine, disk, kernel, initrd, cmdline, apps, firmware; paths are relative to the file. Raises
        EmulatorError that names the file and the key when one is missing or names a missing file.
        """
        path = Path(path)
        try:
            document = json.loads(path.read_text())
        except FileNotFoundError as err:
            raise EmulatorError(f"{path} does not exist: build an image with scripts/build-image") from err
        except (OSError, ValueError) as err:
            raise EmulatorError(f"{path} is not an image description: {err}") from err
        if not isinstance(document, dict):
            raise EmulatorError(f"{path} is not an image description: it must hold a JSON object")

        def text(key, required=True):
            value = document.get(key)
            if value is None and not required:
                return None
            if not isinstance(value, str) or not value:
                raise EmulatorError(f"{path}: '{key}' must be a text that is not empty")
            return value

        def file(key, required=True):
            name = text(key, required)
            if name is None:
                return None
            found = (path.parent / name).resolve()
            if not found.is_file():
                raise EmulatorError(f"{path}: '{key}' names {name}, which does not exist: build the image again")
            return found

        return cls(
            kernel=file("kernel"), cmdline=text("cmdline"), disk=file("disk"), initrd=file("initrd", required=False),
            machine=text("machine", required=False) or cls.machine, apps=document.get("apps") or {},
            efi=document.get("firmware") == "efi",
        )


def latest(image=""):
    """Return the path of the description in build/deploy that was built last.

    Arguments:
        image: the name of the image recipe, or "" for whichever it was.

    Raises EmulatorError when there is none.
    """
    deploy = hostsetup.BUILD / "deploy"
    # IMAGE-MACHINE.json; what has a further suffix (.spdx.json) is something else.
    found = sorted((path for path in deploy.glob(f"{image}*-*.json") if "." not in path.stem),
                   key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise EmulatorError(f"there is no image in {deploy}: build one with scripts/build-image, or name its JSON file")
    return found[-1]


@dataclass(frozen=True)
class Drive:
    """One more virtio disk of the guest: ``path`` is used as it is, without an overlay.

    ``serial`` (at most 20 characters) appears in the guest as /dev/disk/by-id/virtio-SERIAL.
    """

    path: Path
    format: str = "raw"
    readonly: bool = False
    serial: str | None = None


def make_overlay(base, overlay, size=None):
    """Make the qcow2 file ``overlay`` whose unwritten blocks are those of the raw image ``base``.

    ``base`` is only read from then on, and must not change while the overlay is used. ``size``, in bytes, is that of
    the disk when it is to be another than the image's.
    """
    done = subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", f"file:{Path(base).resolve()}", str(overlay),
         *([str(size)] if size else [])],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )
    if done.returncode:
        raise EmulatorError(f"cannot make the overlay {overlay} of {base}: {done.stderr.strip()}")


def drive_arguments(number, path, image_format, readonly=False, serial=None, boot=False):
    """Return QEMU's arguments for virtio disk ``number`` (0 is /dev/vda); ``boot``: firmware boots from it."""
    node = {
        "driver": image_format,
        "node-name": f"disk{number}",
        "read-only": readonly,
        # The power cut here is the end of QEMU, not of the host. A flush of the guest still moves all it wrote
        # from QEMU to the host's page cache, which outlives QEMU; waiting for the host's disk would add nothing.
        "cache": {"direct": False, "no-flush": True},
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(Path(path).resolve()), "read-only": readonly,
                 "cache": {"direct": False, "no-flush": True}, "discard": "unmap"},
    }
    device = {"driver": "virtio-blk-pci", "drive": f"disk{number}", "id": f"virtio-disk{number}"}
    if serial:
        device["serial"] = serial
    if boot:
        device["bootindex"] = 0
    return ["-blockdev", json.dumps(node), "-device", json.dumps(device)]
