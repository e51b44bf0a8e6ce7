# SPDX-License-Identifier: MIT
"""scripts/demo --disk: the disk that a manufacturer writes, on a device whose own is larger, and its factory reset."""

import json
from pathlib import Path

from demonstration.errors import DemoError

# How much larger the device's disk is than the image.
LARGER = 3 << 30
# Prints a line for each partition of the first disk: its number and its bytes.
_SIZES = ("for part in /sys/block/vda/vda*; do read -r number < $part/partition && read -r sectors < $part/size && "
          "echo $number $((sectors * 512)); done")


def larger_size(image):
    """Return the bytes of a disk to which an image (the path of its description) leaves room to grow."""
    description = json.loads(Path(image).read_text())
    return (Path(image).parent / description["disk"]).stat().st_size + LARGER


def shown(machine, image, progress, wait_for_apps, fetch):
    """Look at the disk that has grown, reset the device, and start it once more; return what is left to tell.

    Arguments:
        machine: the logged-in Machine, its apps running.
        image: the path of the image's description.
        progress: a fastlane.progress.Progress.
        wait_for_apps: called with no argument, returns when the device has started its apps after a boot.
        fetch: called with no argument, raises DemoError when an app does not answer.

    Raises DemoError when the device is not as it has to be, EmulatorError when it does not start.
    """
    sizes = dict(line.split() for line in machine.run(_SIZES).stdout.splitlines())
    partitions = [{"name": part["name"], "mountpoint": part["mountpoint"], "built_bytes": part["size"],
                   "bytes": int(sizes.get(str(number), 0))}
                  for number, part in enumerate(json.loads(Path(image).read_text())["partitions"], 1)]
    if partitions[-1]["bytes"] <= partitions[-1]["built_bytes"]:
        raise DemoError("the data partition did not grow: " + _said(machine))
    identities = [_identity(machine)]
    machine.run("echo of the owner before > /var/mine && sync")
    with progress.step("a factory reset: the device checks what it goes back to, and starts anew"):
        machine.run("composeapps factory-reset --yes --no-reboot", timeout=300)
        machine.reboot()
    if machine.run("test -e /var/mine", check=False).exit_status == 0:
        raise DemoError("the factory reset left data: " + _said(machine))
    with progress.step("it installs and starts the preloaded apps"):
        wait_for_apps()
        fetch()
    log = _said(machine).splitlines()
    reset = json.loads(machine.run("composeapps status --json", timeout=60, check=False).stdout)["factory_reset"]
    identities.append(_identity(machine))
    with progress.step("it boots once more and starts what it has"):
        machine.reboot()
        wait_for_apps()
        fetch()
    identities.append(_identity(machine))
    if identities[0] == identities[1] or identities[1] != identities[2]:
        raise DemoError("the identity did not change with the reset, or not only with it: " + ", ".join(identities))
    return {"partitions": partitions, "reset": reset, "log": log, "machine_ids": identities}


def _identity(machine):
    return machine.run("cat /etc/machine-id").stdout.strip()


def _said(machine):
    return machine.run("journalctl --boot --no-pager --output cat _SYSTEMD_UNIT=composeapps-data.service", timeout=60,
                       check=False).stdout.strip()
