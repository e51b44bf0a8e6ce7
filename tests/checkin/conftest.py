# SPDX-License-Identifier: MIT
"""A factory, its server, and a device that it knows."""

import pytest

from composeapps.cli.config import Config
from support import pki
from support.updateserver import UpdateServer


@pytest.fixture(scope="session")
def factory():
    return pki.Factory()


@pytest.fixture
def server(factory):
    with UpdateServer(factory) as running:
        yield running


@pytest.fixture
def config(tmp_path, factory, server):
    """The Config of device-1, whose certificate the server takes."""
    factory.identity(tmp_path / "identity", "device-1")
    return Config(server=server.url, tags=("main",), hardware_id="intel-corei7-64", identity_dir=tmp_path / "identity",
                  state_dir=tmp_path / "state", store=tmp_path / "store", compose_root=tmp_path / "compose",
                  docker_host=f"unix://{tmp_path}/no.sock", root_dir=tmp_path / "tuf",
                  factory_file=tmp_path / "factory.json", factory_store=tmp_path / "factory")
