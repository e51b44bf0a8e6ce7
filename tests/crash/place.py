# SPDX-License-Identifier: MIT
"""What a workload works with: the mounted disk, the engine, and what the recording is about."""

import functools
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import hostsetup
from composeapps.engine.client import Engine
from composeapps.installed.install import load_from_store, load_image
from composeapps.store.store import Store
from crash.contents import World, app_reference
from crash.disks import LAYOUT, Layout
from crash.dockerapi import Docker
from crash.engines import ChosenEngine
from crash.errors import CrashError
from crash.namespaces import HOME

AGENT_SECONDS = 300


@dataclass
class Place:
    """One recording, or one state of it, with its disk mounted.

    ``factory`` is a store with all apps, beside the disk; ``seed`` decides what the workload does.
    """

    engine: ChosenEngine
    world: World
    factory: Path
    seed: str
    layout: Layout = field(default_factory=lambda: LAYOUT)

    def draw(self, what):
        """Return a random.Random for one purpose, the same in each recording with this seed."""
        return random.Random(f"{what} {self.seed}")

    @property
    def socket(self):
        """dockerd's socket."""
        return HOME / "docker.sock"

    @property
    def docker(self):
        """The Docker of the daemon that runs."""
        return Docker(self.socket)

    @functools.cached_property
    def _engine(self):
        """The product's own client: it remembers by which way images are best loaded."""
        return Engine(f"unix://{self.socket}", timeout=60)

    def load(self, name):
        """Load an app's image from the store on the disk, as the agent does."""
        store = Store(self.layout.store)
        app = load_from_store(store, app_reference(self.world, name))
        for image in app.images.values():
            load_image(image, store, self._engine, lambda text: None)

    def image_of(self, name):
        """Return the ImageFacts of an app's image."""
        return self.world.images[sorted(self.world.apps).index(name)]

    def agent(self, *words, check=True, env=None):
        """Run the command composeapps for this disk; see ``run_agent``."""
        config = HOME / "config.toml"
        words_of_compose = ", ".join(f'"{word}"' for word in self.engine.compose_command)
        config.write_text(
            f'[pacman]\nreset_apps_root = "{self.layout.store}"\ncompose_apps_root = "{self.layout.compose_root}"\n'
            f'[composeapps]\nstate_dir = "{self.layout.state}"\ndocker_host = "unix://{self.socket}"\n'
            f'factory_file = "{HOME}/no-factory.json"\nfactory_store = "{self.factory}"\n'
            f"compose_command = [{words_of_compose}]\n")
        return run_agent("--config", str(config), *words, check=check, env=env)


def run_agent(*words, check=True, env=None):
    """Run the command composeapps with these arguments; return (exit status, standard output, standard error).

    ``env`` are environment variables besides this process's own.

    Raises CrashError when it takes too long, or fails and ``check`` is set.
    """
    env = {**os.environ, "PYTHONPATH": str(hostsetup.LAYER / "lib"),
           "PYTHONPYCACHEPREFIX": str(hostsetup.BUILD / "pycache"), **(env or {})}
    argv = [sys.executable, "-m", "composeapps.cli.main", *words]
    shown = f"composeapps {' '.join(words[2:] if words[0] == '--config' else words)}"
    try:
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=AGENT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise CrashError(f"{shown} did not end within {AGENT_SECONDS} s") from None
    if check and done.returncode:
        said = (done.stderr + done.stdout).strip()
        raise CrashError(f"{shown} ended with status {done.returncode}: {said[-1500:]}")
    return done.returncode, done.stdout, done.stderr
