# SPDX-License-Identifier: MIT
"""A fresh clone of this checkout, with what was changed in it and not committed yet."""

import os
import shutil
import subprocess
from pathlib import Path

import hostsetup

# What may be taken from this checkout's build directory: made once, and never changed by what a page does.
SHARED = ("venv", "cache", "tools")


def make(destination, shared=True):
    """Clone this checkout.

    Arguments:
        destination: the new directory.
        shared: let the clone have this checkout's Python packages, downloads and compiled dockerd; without, it begins
            as on a new machine, which takes minutes.

    Returns the clone's Path. Raises subprocess.CalledProcessError.
    """
    destination = Path(destination)
    _git(hostsetup.TOP, "clone", "-q", "--no-hardlinks", "--", str(hostsetup.TOP), str(destination))
    changed = _names("diff", "--name-only", "-z", "HEAD") + _names("ls-files", "-z", "--others", "--exclude-standard")
    for name in changed:
        source, target = hostsetup.TOP / name, destination / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
        else:
            target.unlink(missing_ok=True)
    if shared:
        for name in SHARED:
            if (hostsetup.BUILD / name).is_dir():
                (destination / "build").mkdir(exist_ok=True)
                (destination / "build" / name).symlink_to((hostsetup.BUILD / name).resolve())
    return destination


def _names(*words):
    return [os.fsdecode(name) for name in _git(hostsetup.TOP, *words).split(b"\0") if name]


def _git(directory, *words):
    # Whoever runs a test need not own the checkout.
    settings = [f"safe.directory={directory}", f"safe.directory={directory}/.git", "advice.detachedHead=false"]
    options = [word for setting in settings for word in ("-c", setting)]
    return subprocess.run(["git", *options, "-C", str(directory), *words], stdout=subprocess.PIPE, check=True).stdout
