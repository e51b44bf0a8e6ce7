# SPDX-License-Identifier: MIT
"""A directory for what one run of a machine leaves: overlay, logs, QEMU's command line."""

import os
import re
import shutil
from pathlib import Path

import hostsetup

KEPT_RUNS = 20  # of one name; older ones are removed when a new one is made


def make(name, top=None):
    """Make and return a new directory ``<top>/<name>-<n>`` (top: build/runs), n one above the highest there.

    Two processes that ask at once get two directories.
    """
    top = Path(top) if top else hostsetup.BUILD / "runs"
    top.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "run"
    number = max(_runs(top, name), default=0)
    while True:
        number += 1
        path = top / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        (path / "pid").write_text(f"{os.getpid()}\n")
        _forget_old(top, name)
        return path


def _runs(top, name):
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    return {int(found[1]): path for path in top.iterdir() if (found := pattern.fullmatch(path.name))}


def _forget_old(top, name):
    runs = _runs(top, name)
    for number in sorted(runs)[:-KEPT_RUNS]:
        if not _in_use(runs[number]):
            shutil.rmtree(runs[number], ignore_errors=True)


def _in_use(path):
    try:
        return Path("/proc", (path / "pid").read_text().strip()).is_dir()
    except OSError:
        return False
