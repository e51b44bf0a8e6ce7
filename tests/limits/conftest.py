# SPDX-License-Identifier: MIT
"""A device in memory whose commands are measured."""

import shutil

import pytest

from support import measured, stores


@pytest.fixture
def device(memory, registry):
    """A device whose store is in memory and which has no dockerd."""
    return Device(memory, registry)


class Device:
    """A configuration, and the command with it."""

    def __init__(self, root, registry):
        self.root, self.registry = root, registry
        (root / "config.toml").write_text(
            f'[pacman]\nreset_apps_root = "{root}/store"\ncompose_apps_root = "{root}/compose"\n'
            f'storage_watermark = 95\n[composeapps]\nstate_dir = "{root}/state"\n'
            f'docker_host = "unix://{root}/none.sock"\nfactory_file = "{root}/factory.json"\n'
            f'factory_store = "{root}/factory"\n')

    def run(self, *words, endpoints=None):
        """Run a command; returns a measured.Measured."""
        return measured.run(self.root, "--config", self.root / "config.toml", *words,
                            endpoints=endpoints or self.registry.endpoint)

    def keep(self, app, image, compose):
        """Have an app in the store, as the field's own program would have left it."""
        uri = f"{self.registry.host}/f/web@{image.digest}"
        shutil.rmtree(self.root / "store", ignore_errors=True)
        return stores.write(self.root / "store", f"{self.registry.host}/f/shop", app, {uri: image}, compose=compose)
