# SPDX-License-Identifier: MIT
"""Small git repositories in place of the layers, so that kas and git are the real ones and no network is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
_IDENTITY = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.com", "GIT_COMMITTER_NAME": "t",
             "GIT_COMMITTER_EMAIL": "t@example.com", "GIT_CONFIG_GLOBAL": "/dev/null"}
# As much of openembedded-core as kas itself looks at.
_INIT = 'mkdir -p "$1/conf" && cd "$1"\n'


class Upstream:
    """A directory of git repositories called like the layers; ``commits`` has the tip of each."""

    def __init__(self, directory):
        self.directory = directory
        self.commits = {}

    def add(self, name, branch="wrynose", files=()):
        """Make a repository with one commit; returns the commit."""
        path = self.directory / name
        path.mkdir(parents=True)
        self._git(path, "init", "-q", "-b", branch)
        for file, content in {"README": f"{name}\n", **dict(files)}.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_text(content)
        self._git(path, "add", ".")
        self._git(path, "commit", "-q", "-m", "start")
        self.commits[name] = self._git(path, "rev-parse", "HEAD")
        return self.commits[name]

    @staticmethod
    def _git(path, *words):
        return subprocess.run(["git", "-C", str(path), *words], env={**os.environ, **_IDENTITY}, check=True,
                              capture_output=True, text=True).stdout.strip()


@pytest.fixture
def upstream(tmp_path):
    """An Upstream with the four repositories of kas/base.yml."""
    made = Upstream(tmp_path / "upstream")
    made.add("bitbake", branch="2.18")
    made.add("openembedded-core", files={"oe-init-build-env": _INIT, "meta/conf/layer.conf": ""}.items())
    made.add("meta-openembedded")
    made.add("meta-virtualization")
    return made


@pytest.fixture
def pins(upstream, tmp_path):
    """Write a kas file that pins the repositories of ``upstream`` to their tips, with more repositories if wanted."""
    def write(**repositories):
        path = tmp_path / "pins.yml"
        path.write_text(json.dumps({
            "header": {"version": 20}, "repos": repositories,
            "overrides": {"repos": {name: {"commit": commit} for name, commit in upstream.commits.items()}}}))
        return path
    return write


@pytest.fixture
def check_layer(tmp_path):
    """Run scripts/check-layer with its products in tmp_path/products; returns the finished process."""
    program = "import sys; from layercheck.command import main; sys.exit(main(sys.argv[3:], sys.argv[1], sys.argv[2]))"

    def run(*arguments):
        # main() itself: the command would set up a virtual environment in the directory for products.
        return subprocess.run(
            [sys.executable, "-c", program, str(TOP), str(tmp_path / "products"), *map(str, arguments)],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPYCACHEPREFIX": str(tmp_path / "pycache")},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return run
