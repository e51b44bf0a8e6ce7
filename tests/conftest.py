# SPDX-License-Identifier: MIT
"""Fixtures for all tests: real registries, one of each kind a test run, started when first asked for."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support import registries

pytest_plugins = ["support.fixtures", "support.session"]
TOP = Path(__file__).resolve().parents[1]
_counter = itertools.count(1)


def pytest_configure():
    """Let tests interrupt what they start: a shell has its background jobs, and all that they start, ignore that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Without root, what needs it is reported as skipped; in CI it fails instead."""
    if os.geteuid() == 0 or os.environ.get("CI"):
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: run scripts/test as root, or with sudo"))


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch, tmp_path_factory):
    """Keep the account, the endpoints and the cache of whoever runs the tests out of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("COMPOSEAPPS_ENDPOINTS", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """An open docker-registry; ``registry.endpoint`` is "hub.demo.test=http://127.0.0.1:PORT"."""
    with registries.open_registry(tmp_path_factory.mktemp("open")) as running:
        yield running


@pytest.fixture(scope="session")
def auth_registry(tmp_path_factory):
    """A docker-registry with basic authentication: ``.user``, ``.password``, ``.auth_file``."""
    with registries.password_registry(tmp_path_factory.mktemp("password")) as running:
        yield running


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory):
    """A docker-registry with bearer tokens for everything; ``.tokens.requests`` tells what was asked."""
    with registries.token_registry(tmp_path_factory.mktemp("token")) as running:
        yield running


@pytest.fixture(scope="session")
def tls_registry(tmp_path_factory):
    """A docker-registry behind HTTPS with a private CA: ``.ca_file``."""
    with registries.tls_registry(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture
def factory_name():
    """A factory (first part of a repository's path) that no other test uses, e.g. "factory7"."""
    return f"factory{next(_counter)}"


@pytest.fixture(scope="session")
def device_root():
    """The root file system of the fast lane's base, with the engine that devices get; made when it is missing."""
    done = subprocess.run(
        [sys.executable, TOP / "scripts" / "build-image", "--base-only", "--json", "--quiet"],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["base_tree"])


@pytest.fixture
def free_port():
    """A loopback port on which nobody listens: bound here, never listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
