# SPDX-License-Identifier: MIT
"""Pulling over a network that fails in every way: it is done, or there is one clear error."""

import pytest

from composeapps.errors import CorruptError, NotFoundError, RegistryError
from composeapps.pull.pull import fetch, survey
from composeapps.registry import patience
from composeapps.registry.client import RegistryClient
from composeapps.registry.patience import Patience, retry_after
from composeapps.registry.ratelimit import RateLimit, parse_rate
from composeapps.store.store import Store
from support.faults import FaultyProxy
from support.pulls import QUICK, Notes, client_for, is_whole, layers, publish_app, pull


@pytest.fixture(scope="module")
def shop(registry):
    """An app whose two layers no other test has."""
    return publish_app(registry, "faults/shop", 1_500_000, 400_000, seed="faults")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.mark.parametrize("faults", [
    {"cut_after": 300_000, "times": 5},
    {"cut_after": 10, "times": 3},
    {"stall_after": 300_000, "times": 2},
    {"status": 500, "times": 3},
    {"status": 429, "retry_after": 0, "times": 3},
    {"flip_at": 200_000, "times": 1},
    {"flip_at": 20, "times": 1, "only": "/manifests/"},
    {"cut_after": 200_000, "times": 3, "ignore_range": True},
], ids=lambda faults: next(iter(faults)) + str(next(iter(faults.values()))) + str(faults.get("only", "")))
def test_faults_that_pass(registry, store, shop, faults):
    with FaultyProxy(registry.url, **faults) as proxy:
        pull(shop, store, client_for(registry, proxy.url, timeout=1))
        assert proxy.times == 0, "every fault struck"
    assert is_whole(store, shop)


def test_a_part_that_was_not_asked_for_is_not_taken_for_it(registry, store, shop):
    with FaultyProxy(registry.url, cut_after=500_000, times=1) as cutting, FaultyProxy(
            cutting.url, shift_range=1000) as proxy:
        pull(shop, store, client_for(registry, proxy.url))
    assert is_whole(store, shop)


def test_redirects_are_followed_with_the_range(registry, store, shop):
    with FaultyProxy(registry.url, cut_after=500_000, times=1) as storage, FaultyProxy(
            registry.url, redirect_to=storage.url, only="/blobs/") as proxy:
        pull(shop, store, client_for(registry, proxy.url))
        assert any(asked for asked in storage.ranges) and proxy.body_bytes < 100_000
    assert is_whole(store, shop)


@pytest.mark.parametrize(("faults", "error", "says"), [
    ({"cut_after": 0}, RegistryError, "the connection ended .* gave up after 4 tries"),
    ({"status": 503}, RegistryError, "failed on .*: HTTP 503 .*; gave up after 4 tries"),
    ({"status": 403}, RegistryError, "denies access to faults/shop"),
    ({"status": 404, "only": "/blobs/"}, NotFoundError, "blob sha256:[0-9a-f]{64} of .* is not in the registry"),
    ({"flip_at": 0}, CorruptError, "(whose digest is|wrong content)"),
    ({"redirect_to": ""}, RegistryError, "redirects in circles|failed on"),
], ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "")
def test_faults_that_stay_are_one_clear_error(registry, store, shop, faults, error, says):
    with FaultyProxy(registry.url, **faults) as proxy:
        if "redirect_to" in faults:
            proxy.redirect_to = proxy.url
        with pytest.raises(error, match=says) as caught:
            pull(shop, store, client_for(registry, proxy.url, timeout=1))
    assert "\n" not in str(caught.value) and store.list_apps() == []


def test_a_network_that_comes_back_is_used(registry, store, shop):
    """Each of many cuts leaves the next try something more; no number of them is too many."""
    with FaultyProxy(registry.url, cut_after=70_000, only="/blobs/") as proxy:
        progress = Notes()
        pull(shop, store, client_for(registry, proxy.url), progress)
        size = sum(layer.size for layer in layers(survey(shop, store, client_for(registry)).app))
        assert len(progress.retries) > 15 > QUICK.tries and proxy.body_bytes < size * 1.1
        digest, reason, seconds = progress.retries[0]
        assert digest.startswith("sha256:") and "ended" in reason and seconds >= 0
    assert is_whole(store, shop)


def test_nobody_listens(store, shop, registry, free_port):
    client = client_for(registry, f"http://127.0.0.1:{free_port}")
    with pytest.raises(RegistryError, match=r"cannot be reached: Connection refused; gave up after 4 tries"):
        pull(shop, store, client)
    impatient = RegistryClient({registry.host: f"http://127.0.0.1:{free_port}"}, environ={})
    with pytest.raises(RegistryError, match=r"cannot be reached: Connection refused$"):
        impatient.manifest(shop)


def test_a_registry_that_goes_away_in_between_is_waited_for_longer(registry, store, shop):
    """A name that never answered is sooner taken for a wrong one."""
    patience = Patience(tries=9, first_tries=2, longest=0.01, stubborn=True)
    proxy = FaultyProxy(registry.url)
    with proxy:
        client = client_for(registry, proxy.url, patience=patience)
        found = survey(shop, store, client)
        client().close()
    with pytest.raises(RegistryError, match="cannot be reached: .* gave up after 9 tries"):
        fetch(found, store, client, Notes())
    with pytest.raises(RegistryError, match="cannot be reached: .* gave up after 2 tries"):
        survey(shop, Store(store.root.with_name("other")), client_for(registry, proxy.url, patience=patience))


def test_retry_after_is_honoured_within_reason(registry, store, shop):
    assert retry_after("7") == 7 and retry_after("soon") is None and retry_after(None) is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert 7 <= QUICK.pause(1, retry_after("7")) < 8
    assert patience.LONGEST_REQUEST <= QUICK.pause(1, 86400) < patience.LONGEST_REQUEST + 1
    with FaultyProxy(registry.url, status=429, retry_after=1, times=1, only="/blobs/sha256:") as proxy:
        client = client_for(registry, proxy.url)
        told = []
        client().notify = told.append
        progress = Notes()
        pull(shop, store, client, progress)
        waits = [seconds for _, _, seconds in progress.retries]
        assert any(seconds >= 1 for seconds in waits) or any("again in 1 s" in text for text in told)
    assert is_whole(store, shop)


def test_pauses_grow_and_differ():
    pauses = [Patience(longest=30).pause(failures) for failures in (1, 3, 5, 20) for _ in range(20)]
    assert max(pauses[:20]) <= 0.75 and min(pauses[60:]) >= 15 and max(pauses) <= 45
    assert len(set(pauses)) > 70, "a fleet must not come back in step"


def test_the_limit_holds_for_all_connections_together():
    slept = []
    limit = RateLimit(100_000, slept.append)
    taken = 0
    while taken < 500_000:
        taken += limit.take(64_000)
    # Nobody really waits here, so that the last one is told to wait for all of it.
    assert max(slept) == pytest.approx(5, abs=0.3)
    assert RateLimit(0).take(64_000) == 64_000


@pytest.mark.parametrize(("text", "rate"), [
    ("0", 0), ("500", 500), ("750k", 750_000), ("2M", 2_000_000), ("1.5MB/s", 1_500_000), ("1G", 10**9),
    ("fast", None), ("", None), ("-3", None), ("nan", None), ("2Mbit", None)])
def test_rates(text, rate):
    assert parse_rate(text) == rate
