# SPDX-License-Identifier: MIT
"""A system made of a distribution's packages, entered as if one had just installed it.

The tree is made once a suite. Each run works on an overlay over it, in namespaces of its own, with the tree as its
root: everything ends with the run, whatever it started.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from firsthour.errors import CampaignError

USER = "dev"
# What one has before the first command.
PACKAGES = "apt,python3,git,ca-certificates,sudo,util-linux,procps"
_UBUNTU = "http://archive.ubuntu.com/ubuntu"


class Suite(NamedTuple):
    """One release: ``sources`` are mmdebstrap's, made with the mirror."""

    name: str
    components: str

    def sources(self, mirror):
        """Return mmdebstrap's sources; of Ubuntu a Debian machine has no keys, and the tree is thrown away."""
        if self.name in UBUNTU:
            return [f"deb [trusted=yes] {_UBUNTU} {self.name} {self.components.replace(',', ' ')}"]
        return [mirror]


UBUNTU = ("noble",)
SUITES = {"bookworm": Suite("bookworm", "main"), "trixie": Suite("trixie", "main"),
          "noble": Suite("noble", "main,universe")}

# Run as root of the namespaces: a root of overlay and what a system has around it, then the script as the user.
_ENTER = r"""
set -e
tree=$1 work=$2 origin=$3 cache=$4 user=$5
root=$work/root
mount --make-rprivate /
mount -t overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mkdir -p "$root/srv/origin" "$root/srv/cache" "$root/old"
mount --bind -o ro "$origin" "$root/srv/origin"
if [ -n "$cache" ]; then
  mount -t overlay -o "lowerdir=$cache,upperdir=$work/lent,workdir=$work/lent-work" overlay "$root/srv/cache"
fi
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  if [ -f "$file" ]; then cat "$file" > "$root$file"; fi
done
echo 127.0.0.1 localhost "$(uname -n)" > "$root/etc/hosts"
cat > "$root/srv/script"
cd "$root"
pivot_root . old
umount -l /old
git config --system --add safe.directory '*'
if [ "$user" = root ]; then exec env HOME=/root bash /srv/script; fi
useradd --create-home --shell /bin/bash "$user"
echo "$user ALL=(ALL) NOPASSWD: ALL" > "/etc/sudoers.d/$user"
if [ -n "$cache" ]; then find /srv/cache -maxdepth 1 -exec chown "$user" {} +; fi
exec setpriv --reuid="$user" --regid="$user" --init-groups env HOME="/home/$user" USER="$user" bash /srv/script
"""


def make(name, directory, mirror, say):
    """Return the tree of a suite, made when it is missing.

    Arguments:
        name: one of SUITES.
        directory: where trees are kept.
        mirror: of Debian.
        say: called with a line of text.

    Raises CampaignError when its packages cannot be had.
    """
    tree = Path(directory, name)
    if tree.is_dir():
        return tree
    say(f"making a system of {name}")
    suite, part = SUITES[name], tree.with_name(f"{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io", f"--components={suite.components}",
         f"--include={PACKAGES}",
         "--format=directory", name, str(part), *suite.sources(mirror)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"mmdebstrap ended with {done.returncode}"]
        raise CampaignError(f"no system of {name} can be made: {words[-1]}")
    os.rename(part, tree)
    return tree


def run(tree, work, origin, user, script, log, on_line, cache=None):
    """Run a bash script in a system and return its exit status.

    Arguments:
        tree: what ``make`` returned; it stays as it is.
        work: a directory for the run, removed at the end.
        origin: the repository to clone, there at /srv/origin.
        user: "root", or the name of a user who is made and may use sudo.
        script: its text.
        log: the file that takes its output.
        on_line: called with each line of it.
        cache: a directory that is there at /srv/cache, or None. It and what is directly in it are the user's, and
            what is written there ends with the run.
    """
    for name in ("root", "upper", "work", "lent", "lent-work"):
        Path(work, name).mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items()
            if name.startswith(("PIP_", "COMPOSEAPPS_")) or name.lower().endswith("_proxy")}
    kept.pop("COMPOSEAPPS_BUILD", None)
    environment = {**kept, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
                   "TERM": "dumb"}
    try:
        with open(log, "w") as kept_log, subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh",
                 *map(str, (tree, work, origin, cache or "", user))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                env=environment) as process:
            try:
                process.stdin.write(script)
                process.stdin.close()
                for line in process.stdout:
                    kept_log.write(line)
                    kept_log.flush()
                    on_line(line.rstrip())
            except BaseException:
                process.kill()
                raise
        return process.returncode
    finally:
        shutil.rmtree(work, ignore_errors=True)
