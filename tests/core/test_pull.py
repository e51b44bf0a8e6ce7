# SPDX-License-Identifier: MIT
"""Pulling apps from a real registry into a store."""

import functools

import pytest

from composeapps.progress import Progress
from composeapps.pull import fetch, survey
from composeapps.reference import parse_pinned
from composeapps.registry import RegistryClient, parse_endpoints
from composeapps.store import Store
from support.apps import publish
from support.images import multi_platform


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def app_ref(registry, factory_name):
    images = {"web": multi_platform("web" * 1000), "db": multi_platform("db" * 1000)}
    return parse_pinned(publish(registry, f"{registry.host}/{factory_name}/shop:1", images))


def lazily(registry):
    return functools.cache(lambda: RegistryClient(parse_endpoints(registry.endpoint)))


def no_network():
    raise AssertionError("the network is not to be used")


def test_a_pulled_app_is_complete_and_needs_no_network_again(registry, store, app_ref):
    found = survey(app_ref, store, lazily(registry))
    assert found.size == sum(blob.descriptor.size for blob in found.missing)
    assert not store.root.exists(), "a survey writes nothing"
    app = fetch(found, store, lazily(registry), Progress())
    assert store.list_apps() == [app_ref]
    assert all(store.verify(blob.descriptor.digest, blob.descriptor.size) is None for blob in app.blobs())
    again = survey(app_ref, store, no_network)
    assert again.missing == () and again.size == 0
    assert fetch(again, store, no_network, Progress()).ref == app_ref
