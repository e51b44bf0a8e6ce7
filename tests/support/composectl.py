# SPDX-License-Identifier: MIT
"""The real composectl, where whoever runs the tests has it on PATH; it is no part of this project."""

import os
import shutil
import subprocess
from pathlib import Path

PROGRAM = shutil.which("composectl")


class Composectl:
    """composectl on a device of its own below ``home``, in the places that it takes by itself.

    Arguments:
        home: a directory.
        registry: the support.registries.Registry that stands for every host.
        host: dockerd's, as in DOCKER_HOST.
        compose_command: what starts docker compose.
    """

    def __init__(self, home, registry, host="", compose_command=()):
        self.home = Path(home)
        self.store, self.projects = self.home / ".composeapps" / "store", self.home / ".composeapps" / "projects"
        programs = self.home / "bin"
        programs.mkdir(parents=True)
        if compose_command:
            # It runs "docker compose …".
            (programs / "docker").write_text(f'#!/bin/sh\nshift\nexec {" ".join(compose_command)} "$@"\n')
            (programs / "docker").chmod(0o755)
        self.env = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(self.home),
                    "COMPOSE_APPS_PROXY": f"{registry.url}/", **({"DOCKER_HOST": host} if host else {})}

    def popen(self, *argv):
        """Start it."""
        return subprocess.Popen([PROGRAM, *argv], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def run(self, *argv):
        """Run it; return (exit status, all that it printed)."""
        done = subprocess.run([PROGRAM, *argv], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
        return done.returncode, done.stdout

    def do(self, *argv):
        """Run it, and want it to succeed; return what it printed."""
        status, text = self.run(*argv)
        assert status == 0, text
        return text
