# SPDX-License-Identifier: MIT
"""Debian roots: one that compiles dockerd, one that runs it; and programs run in them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from fastlane import bootstrap
from fastlane.errors import BuildError
from fastlane.progress import Progress
from moby import cache

SUITE = "trixie"
SOURCE_PACKAGE = "docker.io"

# What runs a dockerd and records what it writes: QEMU's storage daemon is in qemu-utils.
_ENGINE = ("ca-certificates", "containerd", "docker-cli", "docker-compose", "docker.io", "e2fsprogs", "fuse3",
           "iptables", "python3", "qemu-utils", "runc", "skopeo", "zstd")
_EXCLUDE = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")

# The newest source comes first; of a revision that fixes security the mirror may lack the .dsc.
_DOWNLOAD = f"""\
mkdir -p /source /src /cache /out && cd /source
for version in $(apt-cache showsrc --only-source {SOURCE_PACKAGE} | sed -n 's/^Version: //p' | sort -ruV); do
    apt-get source --only-source --download-only {SOURCE_PACKAGE}=$version && break
done
if ! ls *.dsc > /dev/null; then echo 'E: no source of {SOURCE_PACKAGE} can be downloaded'; exit 1; fi
"""
# By the root's own apt: the package's build-dependencies, and its source.
_PREPARE = (
    f'chroot "$1" env DEBIAN_FRONTEND=noninteractive apt-get build-dep --yes {SOURCE_PACKAGE}',
    f'chroot "$1" sh -c {shlex.quote(_DOWNLOAD)}',
    'chroot "$1" apt-get clean',
)

# The mount and PID namespaces end with the program: nothing stays mounted or alive, however it ends.
_ENTER = """
set -e
root=$1; shift
mount --make-rprivate /
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; shift 2; done
shift
exec chroot "$root" "$@"
"""


def mirror():
    """Return the base URL of Debian's archive, which COMPOSEAPPS_MIRROR may name."""
    return os.environ.get("COMPOSEAPPS_MIRROR") or bootstrap.DEFAULT_MIRROR


def _make(kind, packages, progress, title, **options):
    progress = progress or Progress(quiet=True)
    directory = cache.place()
    description = {"suite": SUITE, "packages": packages, **options}
    name = cache.key(description, bootstrap, sys.modules[__name__])
    with cache.lock(directory, kind, progress):
        if (directory / f"{kind}-{name}").is_dir():
            return cache.make(directory, kind, name, None) / "tree"
        bootstrap.check_tools()

        def fill(new):
            bootstrap.make_root(
                new / "tree", SUITE, mirror(), packages, progress, log=directory / f"{kind}.log",
                where="scripts/lib/moby/root.py", exclude=_EXCLUDE, **options)

        with progress.step(title):
            return cache.make(directory, kind, name, fill) / "tree"


def engine_root(progress=None):
    """Return the path of a Debian root that holds what runs a dockerd and records its writes; made when missing.

    Besides docker.io it has QEMU's storage daemon, e2fsprogs and skopeo. It is shared: nobody may write to it.

    Arguments:
        progress: a fastlane.progress.Progress, or None for silence.

    Raises BuildError when it cannot be made.
    """
    return _make("engine", list(_ENGINE), progress, "making a Debian root with the engine (once)")


def compiler_root(progress=None):
    """Return the path of a Debian root that holds what docker.io is built with; made when it is missing.

    Arguments and errors are those of ``engine_root``.
    """
    return _make("compiler", ["ca-certificates"], progress, "making a Debian root with the Go compiler (once)",
                 variant="buildd", sources=[f"deb-src {mirror()} {SUITE} main"], hooks=list(_PREPARE))


def run(root, argv, progress, *, log, binds=(), cwd="/", env=None):
    """Run ``argv`` in ``root`` to its end; return its exit status.

    Arguments:
        root: a Debian root.
        argv: the program and its arguments.
        progress: is shown each line of the output as a detail.
        log: file that takes standard output and error.
        binds: {directory of this machine: directory in the root}, which is there.
        cwd: directory in the root.
        env: variables besides PATH, HOME and LC_ALL.
    """
    words = [str(word) for pair in dict(binds).items() for word in pair]
    settings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C", **(env or {})}
    # Should this process be killed, then so is the program: the next one finds nobody at work in its files.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child",
               "sh", "-c", _ENTER, "sh", str(root), *words, "--", "env", "-i", f"--chdir={cwd}",
               *(f"{name}={value}" for name, value in settings.items()), *map(str, argv)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        with open(log, "w") as copy, subprocess.Popen(command, text=True, errors="replace", **pipes) as process:
            try:
                for line in process.stdout:
                    copy.write(line)
                    copy.flush()
                    progress.detail(line.strip()[:100])
            except BaseException:
                process.kill()
                raise
    except OSError as err:
        raise BuildError(f"{command[0]}: {err.strerror}: install Debian's package util-linux") from None
    return process.returncode


def last_lines(log, count=6):
    """Return the last lines of ``log`` that say something, in one."""
    lines = [line.strip() for line in Path(log).read_text(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[-count:])
