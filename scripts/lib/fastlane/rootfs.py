# SPDX-License-Identifier: MIT
"""The root file system of an image: the base, the recipes' packages over it, the last touches."""

import json
import os
from pathlib import Path

from fastlane import base as bases
from fastlane import packaging, services, trees

# What a ROOTFS_POSTPROCESS_COMMAND may well write into in place.
PRIVATE = ("etc", "home", "root", "srv", "var")


def lay_out(plan, root, hostname):
    """Make ``root`` a fresh copy of the base, named ``hostname``."""
    trees.remove_tree(root)
    Path(root).parent.mkdir(parents=True, exist_ok=True)
    trees.link_tree(plan.base.tree, root, PRIVATE)
    trees.write_file(root, "etc/hostname", f"{hostname}\n")
    trees.write_file(root, "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost\n")
    # Empty, not absent: each device draws its own, and systemd takes no boot for the very first,
    # on which it would enable and disable units by its presets.
    trees.write_file(root, "etc/machine-id", "", mode=0o444)


def install_packages(plan, root):
    """Put the files of the plan's packages into ``root`` and apply what their recipes say of units.

    Raises BuildError for a file in no package, a missing unit, or a file where a directory is.
    """
    splits = {}
    for recipe, package in plan.packages:
        if recipe not in splits:
            splits[recipe] = packaging.split(recipe) if os.path.isdir(recipe.d.getVar("D")) else {}
        trees.lay_over(recipe.d.getVar("D"), splits[recipe].get(package, ()), root)
    for recipe, package in plan.packages:
        services.apply(recipe, package, root)


def configure_login(root, features, console):
    """Give root's account what IMAGE_FEATURES asks for; without features it stays locked."""
    shadow = Path(root, "etc/shadow")
    lines = shadow.read_text().splitlines()
    password = "" if "empty-root-password" in features else "*"
    lines = [f"root:{password}:{line.split(':', 2)[2]}" if line.startswith("root:") else line for line in lines]
    # In place: the copy is ours alone, and its owner and mode stay.
    shadow.write_text("\n".join(lines) + "\n")
    if "serial-autologin-root" in features and "empty-root-password" in features:
        trees.write_file(
            root, f"etc/systemd/system/serial-getty@{console}.service.d/autologin.conf",
            "[Service]\nExecStart=\n"
            "ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - $TERM\n")


def finish(plan, root):
    """Spare the first boot some work, and make sure that the cached base is as it was."""
    newest = os.stat(Path(root, "usr")).st_mtime_ns
    # systemd compares these with /usr to see whether /etc and /var need an update (systemd-update-done(8)).
    for directory in ("etc", "var"):
        stamp = Path(root, directory, ".updated")
        stamp.write_text(f"TIMESTAMP_NSEC={newest}\n")
        os.utime(stamp, ns=(newest, newest))
    for name in ("tmp", "run"):
        for path in Path(root, name).iterdir():
            trees.remove_tree(path)
    bases.check(plan.base)


def installed(plan):
    """Return what is in the image: recipes with versions, and Debian's packages, for the artifact's description."""
    return {
        "recipes": {recipe.pn: recipe.pv for recipe in plan.order},
        "debian": plan.debian,
    }


def preloaded(d):
    """Return ``{app: pinned reference}`` of the factory file in the image of a data store, {} when it has none."""
    try:
        return json.loads(Path(d.getVar("IMAGE_ROOTFS") + d.getVar("COMPOSEAPPS_FACTORY_FILE")).read_text())["apps"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
