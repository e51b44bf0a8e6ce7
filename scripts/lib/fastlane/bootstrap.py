# SPDX-License-Identifier: MIT
"""A Debian root by mmdebstrap, with its progress shown and its failures turned into one sentence."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from fastlane.errors import BuildError

# Named, not searched for: other distributions do not trust Debian's keys by themselves.
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEFAULT_MIRROR = "http://deb.debian.org/debian"


def check_tools():
    """Raise BuildError when a tool that ``make_root`` runs is missing."""
    for tool, package in (("mmdebstrap", "mmdebstrap"), ("chroot", "coreutils")):
        if not shutil.which(tool):
            raise BuildError(f"{tool} is not installed: install Debian's package {package}")
    if not Path(KEYRING).exists():
        raise BuildError(f"{KEYRING} is not there: install Debian's package debian-archive-keyring")


def make_root(tree, suite, mirror, packages, progress, *, log, where, variant="apt", architecture="amd64", exclude=(),
              sources=(), hooks=()):
    """Make the directory ``tree`` a Debian root.

    Arguments:
        tree: where; the directory above it is there, it is not.
        suite: e.g. "trixie".
        mirror: base URL of the archive.
        packages: names of Debian packages.
        progress: a fastlane.progress.Progress.
        log: file for all that mmdebstrap says.
        where: the file in which the list of packages is kept, for the sentence about a wrong one.
        variant: mmdebstrap's: "apt" for Debian's bare minimum, "buildd" for a root that compiles.
        exclude: patterns of files that are not unpacked.
        sources: further lines for sources.list.
        hooks: shell commands run at the end; "$1" in them is the root, /proc and /dev are there, so is the network.

    Raises BuildError when the mirror cannot be reached, a package does not exist, the disk is full, a hook fails.
    """
    argv = [
        "mmdebstrap", "--mode=root", f"--variant={variant}", f"--architectures={architecture}",
        f"--include={','.join(packages)}", f"--keyring={KEYRING}",
        "--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=Acquire::Retries \"3\"", "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in exclude),
        *(f"--customize-hook={hook}" for hook in hooks),
        suite, str(tree), mirror, *sources,
    ]
    env = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", "1767225600")}
    said = []
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with open(log, "w") as copy, subprocess.Popen(argv, text=True, errors="replace", env=env, **pipes) as process:
        try:
            for line in process.stdout:
                copy.write(line)
                said.append(line.strip())
                if line.startswith("I: "):
                    progress.detail(f"Debian {suite}: {line[3:].strip()}")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise BuildError(f"{_sentence(said, mirror, where)} (log: {log})")


def _sentence(said, mirror, where):
    """Return the sentence for a failed mmdebstrap from what it said."""
    text = "\n".join(said)
    missing = re.search(r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate", text)
    if missing:
        return f"Debian has no package '{missing[1] or missing[2]}': correct it in {where}"
    if "No space left on device" in text:
        return "the disk is full while a Debian root is made: free a few GB and try again"
    unreachable = r"Could not (connect|resolve)|Temporary failure|Failed to fetch|Unable to connect|no Release file"
    if re.search(unreachable, text):
        return (f"Debian's mirror {mirror} cannot be used ({_last_error(said)}): check the network, "
                "or name another with --mirror")
    return f"mmdebstrap failed: {_last_error(said)}"


def _last_error(said):
    errors = [line[2:].strip() for line in said if line.startswith("E:")]
    apt = [line for line in errors if not line.startswith(("apt-get", "run_chroot", "setup failed"))]
    return (apt or errors or said or ["it gave no reason"])[0]
