# SPDX-License-Identifier: MIT
"""Debian's source of dockerd, unpacked and laid out as its build wants it, and copies of it with patches."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fastlane.errors import BuildError
from moby import cache, root

# Where things appear in the root while something is built.
INSIDE = "/src/docker.io"
ENGINE = "_build/src/github.com/docker/docker"

# debian/rules: without "clean" a copy of buildkit stays beside the one of Debian's patches, and both are compiled in.
_PREPARE = """\
set -e
dpkg-source --extract /source/*.dsc docker.io
cd docker.io
debian/rules clean
debian/rules override_dh_auto_configure
"""
_DESCRIBE = """\
set -e
cd docker.io
dpkg-parsechangelog --show-field Version
version=$(dpkg-parsechangelog --show-field Version)
debian/helpers/gitcommit.sh engine "${version%-*}"
date --utc --date "@$(dpkg-parsechangelog --show-field Timestamp)" --iso-8601=seconds
"""


@dataclass(frozen=True)
class Source:
    """A prepared source, which nobody may write to.

    Arguments:
        tree: what appears in the root as the directory above INSIDE.
        version: of the Debian package, e.g. "26.1.5+dfsg1-9".
        commit: of moby that it was made from.
        date: of the package, ISO 8601.
    """

    tree: Path
    version: str
    commit: str
    date: str

    @property
    def upstream(self):
        """The version without Debian's revision, which dockerd gives as its own."""
        return self.version.rpartition("-")[0]

    @property
    def engine(self):
        """The directory of moby's own code."""
        return self.tree / Path(INSIDE).name / ENGINE


def prepared(compiler, progress):
    """Return the Source that lies in the root ``compiler``, unpacked and configured when it is not yet.

    The caller holds the lock "source". Raises BuildError when it cannot be unpacked.
    """
    directory = cache.place()
    archives = sorted(path.name for path in (compiler / "source").iterdir())
    name = cache.key([compiler.parent.name, archives, _PREPARE, _DESCRIBE])
    found = directory / f"source-{name}"
    if not found.is_dir():
        with progress.step("unpacking dockerd's source"):
            found = cache.make(directory, "source", name, lambda new: _fill(new, compiler, progress))
    return Source(found / "tree", **json.loads((found / "source.json").read_text()))


def _fill(new, compiler, progress):
    tree, log = new / "tree", cache.place() / "source.log"
    tree.mkdir()
    parent = Path(INSIDE).parent
    for script in (_PREPARE, _DESCRIBE):
        if root.run(compiler, ["sh", "-c", script], progress, log=log, binds={tree: parent}, cwd=parent):
            raise BuildError(f"dockerd's source cannot be unpacked: {root.last_lines(log, 2)} (log: {log})")
    version, commit, date = log.read_text().split()
    (new / "source.json").write_text(json.dumps({"version": version, "commit": commit, "date": date}) + "\n")


def copy(source, target, series):
    """Make ``target`` a copy of moby's code in ``source`` with the patches of ``series`` applied.

    Raises BuildError with the first patch that does not apply exactly as it is, and where.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source.engine, target, symlinks=True)
    for path in series.patches:
        apply(path, target, f"docker.io {source.version}")


def apply(path, tree, what):
    """Apply one patch to ``tree``. Raises BuildError when it does not fit without fuzz and offsets.

    Arguments:
        path: the file.
        tree: the directory that the names in the patch start from.
        what: what the tree is, for the message.
    """
    argv = ["patch", "--strip=1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "--input",
            str(Path(path).resolve())]
    try:
        done = subprocess.run(argv, cwd=tree, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"})
    except FileNotFoundError:
        raise BuildError("patch is not installed: install Debian's package patch") from None
    said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    wrong = [line for line in said if not line.startswith("patching file ")]
    if done.returncode or wrong:
        raise BuildError(f"{Path(path).name} does not fit {what}: {'; '.join((wrong or said)[:3])}; write the patch "
                         "anew against this version")
